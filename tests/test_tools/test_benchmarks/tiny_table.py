"""``run_table.py`` with a table of its own: models of seconds, as a script because one test kills it.

    python tiny_table.py CONFIGS tiny [options of run_table.py]

CONFIGS is the folder of the configs that ``write_configs`` has written.
"""

import runpy
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[3] / 'tools' / 'benchmarks'

_COMMON = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
# As CIFAR-10's images: RGB arrays, no transform that loads.
pipeline = [dict(type='PackInputs')]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='train', pipeline=pipeline),
)
backbone = dict(
    type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), img_size=8, patch_size=4
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=3, by_epoch=True, begin=1, end=4, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3),
)
"""

_PRETRAIN = (
    _COMMON
    + """
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
backbone.update(out_type='raw', arch=dict(embed_dim=32, layout='MTM', num_heads=4, d_state=4))
model = dict(
    type='MAP',
    backbone=backbone,
    neck=dict(type='RegionCausalDecoder', embed_dim=16, depth=1, num_heads=2),
    head=dict(type='PixelReconstructionHead'),
)
"""
)

_FINETUNE = (
    _COMMON
    + """
data_preprocessor = dict(num_classes=10, mean=[127.5] * 3, std=[127.5] * 3, to_rgb=False)
backbone.update(out_type='avg_featmap', drop_path_rate=0.1)
model = dict(
    type='HybridClassifier', backbone=backbone, head=dict(type='LinearClsHead', num_classes=10)
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CIFAR10', data_root='data/cifar10', split='test', pipeline=pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='Accuracy', topk=(1,))
val_cfg = test_cfg = {}
"""
)


def write_configs(folder: Path) -> None:
    """Write the configs of the table."""
    (folder / 'pretrain.py').write_text(_PRETRAIN)
    (folder / 'finetune.py').write_text(_FINETUNE)
    # Fails once it runs: no image has this size.
    (folder / 'broken.py').write_text(_PRETRAIN + 'backbone.update(patch_size=3)\n')


def add_table(configs: Path) -> None:
    """Add the table ``tiny``: rows ``scratch``, ``map``, ``broken``."""
    from table.rows import TABLES, Recipe, Row

    pretrain, finetune, broken = (str(configs / f'{name}.py') for name in ('pretrain', 'finetune', 'broken'))
    TABLES['tiny'] = [
        Row('scratch', 'from scratch', {'mini': Recipe(finetune, finetune)}, 83.1),
        Row('map', 'MAP', {'mini': Recipe(finetune, finetune, pretrain)}, 84.9, 'a note'),
        Row('broken', 'broken', {'mini': Recipe(finetune, finetune, broken)}),
    ]


if __name__ == '__main__':
    sys.path.insert(0, str(BENCHMARKS))
    add_table(Path(sys.argv.pop(1)))
    runpy.run_path(str(BENCHMARKS / 'run_table.py'), run_name='__main__')
