"""Classes of folders, lists, checkpoints under the tools: the numbers are right, or a line says why there is none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.runner import Runner
from PIL import Image

from mmmap.registry import METRICS

COLOURS = dict(ant=(250, 20, 20), bee=(20, 250, 20), cat=(20, 20, 250), dog=(250, 250, 20), Bee=(20, 250, 20))
TEXT = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True, num_classes=3),
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4),
        img_size=16,
        patch_size=8,
        out_type='avg_featmap',
    ),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=16),
)
pipeline = [dict(type='LoadImageChecked', on_error='raise'), dict(type='PackInputs')]


def loader(folder, shuffle=False, **more):
    # Serialized lists are for millions of images: each takes a round of the garbage collector.
    dataset = dict(type='CustomDataset', data_root='data/' + folder, pipeline=pipeline, serialize_data=False, **more)
    return dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=shuffle), dataset=dataset)


train_dataloader = loader('all', shuffle=True)
val_dataloader = loader('lacks')
test_dataloader = val_dataloader
val_cfg = test_cfg = dict()
val_evaluator = test_evaluator = dict(type='Accuracy')
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-2))
train_cfg = dict(by_epoch=True, max_epochs=1)
randomness = dict(seed=0)
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1))
"""
OTHER_ORDER = ['data_root=data/all', 'ann_file=../order.txt', 'metainfo.classes=data/order_names.txt']


@METRICS.register_module(force=True)
class NumberOfClasses(BaseMetric):
    """What a metric is told of the classes."""

    def process(self, data_batch, data_samples) -> None:
        """Count samples."""
        self.results += data_samples

    def compute_metrics(self, results: list) -> dict:
        """The number."""
        return dict(classes=len(self.dataset_meta['classes']))


@pytest.fixture(scope='module')
def images(tmp_path_factory) -> Path:
    """Folders of images whose colours tell their class, a config, and a checkpoint that is right about all of them."""
    folder = tmp_path_factory.mktemp('classes')
    for part, names in dict(all='ant bee cat', lacks='bee cat', unknown='ant bee dog', case='ant Bee cat').items():
        for name in names.split():
            path = folder / 'data' / part / name
            path.mkdir(parents=True)
            for seed in range(4):
                noise = np.random.default_rng(seed).integers(-15, 15, (16, 16, 3))
                Image.fromarray((COLOURS[name] + noise).clip(0, 255).astype(np.uint8)).save(path / f'{seed}.png')
    order = ['cat', 'ant', 'bee']
    lines = [f'{name}/{seed}.png {label}' for label, name in enumerate(order) for seed in range(4)]
    (folder / 'data' / 'order.txt').write_text('\n'.join(lines))
    (folder / 'data' / 'order_names.txt').write_text('\n'.join(order))
    (folder / 'config.py').write_text(TEXT)
    cfg = Config.fromfile(folder / 'config.py')
    cfg.update(work_dir=str(folder / 'run'), experiment_name='classes', val_cfg=None, val_dataloader=None)
    cfg.update(val_evaluator=None, train_cfg=dict(by_epoch=True, max_epochs=10))
    cfg.train_dataloader.dataset.data_root = str(folder / 'data' / 'all')
    cfg.train_dataloader.collate_fn = dict(type='default_collate')
    cfg.default_hooks.checkpoint.interval = 10
    Runner.from_cfg(cfg).train()
    (folder / 'run' / 'epoch_10.pth').rename(folder / 'model.pth')
    content = torch.load(folder / 'model.pth', weights_only=False)
    assert content['meta']['dataset_meta']['classes'] == ('ant', 'bee', 'cat')
    torch.save(dict(state_dict=content['state_dict']), folder / 'nameless.pth')
    return folder


@pytest.fixture
def tool(images, run_tool, capsys, monkeypatch, tmp_path):
    """A function that runs a tool on the config and gives what it prints, of one that fails the last line."""
    monkeypatch.chdir(images)
    monkeypatch.setenv('LOCAL_RANK', '0')

    def run(name: str, *arguments: object, options: tuple = (), fails: bool = False) -> str:
        capsys.readouterr()
        options = ['--cfg-options', *options] if options else []
        arguments = [name, 'config.py', *arguments, '--work-dir', tmp_path / 'run', *options]
        if not fails:
            run_tool(*arguments)
            return capsys.readouterr().out
        with pytest.raises(SystemExit) as end:
            run_tool(*arguments)
        lines = capsys.readouterr().err.splitlines()
        assert end.value.code == 1 and not any('Traceback' in line for line in lines), lines
        return lines[-1]

    return run


def of(key: str, *options: str) -> list[str]:
    return [f'{key}_dataloader.dataset.{option}' for option in options]


MAPPED = 'dataset lacks {} of the classes of {}: its labels are mapped by name.'


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        ([], "lacks 'ant' of the classes of"),
        (['data_root=data/all'], None),
        (OTHER_ORDER, 'has another order of the classes of'),
    ],
)
def test_a_perfect_classifier_has_100_percent(tool, options, told):
    out = tool('test.py', 'model.pth', options=of('test', *options))
    assert 'accuracy/top1: 100.0000' in out
    if told is None:
        assert 'mapped by name' not in out
    else:
        assert f'test_dataloader.dataset {told} the checkpoint model.pth: its labels are mapped by name.' in out


def test_validation_is_right_too(tool):
    metrics = "val_evaluator=[dict(type='Accuracy'),dict(type='NumberOfClasses')]"
    out = tool('train.py', options=['load_from=model.pth', 'optim_wrapper.optimizer.lr=0', metrics])
    assert 'classes: 3 ' in out
    assert "val_dataloader.dataset lacks 'ant' of the classes of train_dataloader.dataset: its labels are mapped" in out
    assert 'accuracy/top1: 100.0000' in out and 'was trained on other classes' not in out


@pytest.mark.parametrize(
    ('folder', 'culprit'),
    [('unknown', "'dog' unknown to the latter, which has 'cat'"), ('case', "'Bee' and 'bee' are two names")],
)
def test_other_names_are_refused(tool, folder, culprit):
    line = tool('test.py', 'model.pth', options=of('test', f'data_root=data/{folder}'), fails=True)
    assert line.startswith('error: test_dataloader.dataset (3 classes) has other classes than the checkpoint model.pth')
    assert culprit in line
    line = tool('train.py', options=of('val', f'data_root=data/{folder}'), fails=True)
    assert line.startswith('error: val_dataloader.dataset (3 classes) has other classes than train_dataloader.dataset')
    assert culprit in line


def test_a_checkpoint_without_names(tool):
    # The training set of the config tells them, if it is there or has a list.
    expected = MAPPED.format("'ant'", 'train_dataloader.dataset')
    listed = of('train', 'data_root=/nowhere', 'metainfo.classes="[ant,bee,cat]"')
    for options in ((), listed):
        out = tool('test.py', 'nameless.pth', options=options)
        assert expected in out and 'accuracy/top1: 100.0000' in out
    line = tool('test.py', 'nameless.pth', options=of('train', 'data_root=/nowhere'), fails=True)
    assert "has 2 classes ('bee', 'cat'), the head of the model 3, and the checkpoint nameless.pth does not say" in line
    options = of('train', 'data_root=/nowhere') + of('test', 'data_root=data/unknown')
    assert 'nameless.pth does not name its classes' in tool('test.py', 'nameless.pth', options=options)


def test_a_run_is_not_resumed_on_other_classes(tool):
    more = ['train_cfg.max_epochs=11']
    line = tool(
        'train.py', '--resume', 'model.pth', options=[*more, *of('train', 'data_root=data/unknown')], fails=True
    )
    assert line.startswith(
        'error: train_dataloader.dataset (3 classes) has other classes than the checkpoint model.pth'
    )
    out = tool('train.py', '--resume', 'model.pth', options=[*more, *of('train', *OTHER_ORDER)])
    assert 'train_dataloader.dataset has another order of the classes of the checkpoint model.pth' in out
    # On wrong labels it would forget what it knew.
    assert 'accuracy/top1: 100.0000' in out


def test_training_may_start_from_other_classes(tool):
    unknown = of('train', 'data_root=data/unknown') + of('val', 'data_root=data/unknown')
    warning = 'the checkpoint model.pth was trained on other classes than train_dataloader.dataset has'
    out = tool('train.py', options=['load_from=model.pth', *unknown])
    assert f"{warning} ('dog' unknown to it): the head of the model starts from the weights for those classes" in out
    # Its head is left out, or only the backbone is taken.
    backbone = "model.backbone.init_cfg=dict(type='Pretrained',checkpoint='model.pth',prefix='backbone')"
    for options in (['load_from=model.pth', 'model.head.num_classes=4'], [backbone]):
        assert 'other classes' not in tool('train.py', options=[*options, *unknown])


def test_more_classes_than_outputs_are_named(tool):
    line = tool('train.py', options=['model.head.num_classes=2'], fails=True)
    assert line == 'error: train_dataloader.dataset has 3 classes, model.head.num_classes=2: set it to 3'


CONCAT = """dict(_delete_=True,type='ConcatDataset',datasets=[
    dict(type='RepeatDataset',times=2,dataset=dict(type='CustomDataset',data_root='data/lacks',pipeline={0},serialize_data=False)),
    dict(type='CustomDataset',data_root='data/{1}',pipeline={0},serialize_data=False)])""".replace('\n', '').replace(
    ' ', ''
)
PIPELINE = "[dict(type='LoadImageChecked',on_error='raise'),dict(type='PackInputs')]"


def test_parts_of_one_data_set(tool, images):
    both, unlike = (CONCAT.format(PIPELINE, folder) for folder in ('all', 'unknown'))
    out = tool('test.py', 'model.pth', options=[f'test_dataloader.dataset={both}'])
    assert "test_dataloader.dataset.datasets[0].dataset lacks 'ant'" in out and 'accuracy/top1: 100.0000' in out
    line = tool('test.py', 'model.pth', options=[f'test_dataloader.dataset={unlike}'], fails=True)
    assert line.startswith(
        'error: test_dataloader.dataset.datasets[1] (3 classes) has other classes than the checkpoint'
    )
    out = tool(
        'train.py', options=['train_cfg.max_epochs=10', 'train_cfg.val_interval=10', f'train_dataloader.dataset={both}']
    )
    assert "train_dataloader.dataset.datasets[0].dataset lacks 'ant'" in out and 'accuracy/top1: 100.0000' in out
    line = tool('train.py', options=[f'train_dataloader.dataset={unlike}'], fails=True)
    assert 'train_dataloader.dataset.datasets[0].dataset (2 classes) has other classes than' in line and "'cat'" in line


def test_labels_that_workers_have_already_are_not_mapped(tool):
    both = CONCAT.format(PIPELINE, 'all')
    iterations = 'train_cfg=dict(_delete_=True,by_epoch=False,max_iters=1)'
    options = [f'train_dataloader.dataset={both}', iterations, 'train_dataloader.sampler.type=InfiniteSampler']
    assert 'mapped by name' in tool('train.py', '--no-validate', options=options)
    line = tool('train.py', '--no-validate', options=[*options, 'train_dataloader.num_workers=1'], fails=True)
    assert "datasets[0].dataset lacks 'ant'" in line and 'its workers have the labels already' in line


def test_augmented_test_of_several_data_sets(tool):
    both = CONCAT.format(PIPELINE, 'all')
    tta = (
        "tta_pipeline=[dict(type='LoadImageChecked'),dict(type='TestTimeAug',transforms=[[dict(type='RandomFlip',prob=0.),"
        "dict(type='RandomFlip',prob=1.)],[dict(type='PackInputs')]])]"
    )
    options = [f'test_dataloader.dataset={both}', "tta_model=dict(type='AverageClsScoreTTA')", tta]
    assert 'accuracy/top1: 100.0000' in tool('test.py', 'model.pth', '--tta', options=options)


def test_confusion_matrix_has_all_classes(tool, tmp_path):
    tool('test.py', 'model.pth', '--out', tmp_path / 'predictions.pkl')
    for source in ('model.pth', tmp_path / 'predictions.pkl'):
        files = ['--out', tmp_path / 'cm.png', '--json', tmp_path / 'cm.json']
        assert 'accuracy: 100.00 % of 8 images' in tool('analysis_tools/confusion_matrix.py', source, *files)
        counts = dict(classes=['ant', 'bee', 'cat'], counts=[[0, 0, 0], [0, 4, 0], [0, 0, 4]])
        assert json.loads((tmp_path / 'cm.json').read_text()) == counts
        (tmp_path / 'cm.json').unlink()


def knn_hook(bank: str, query: str) -> str:
    """Loaders without a collate_fn, as the other loaders of the config."""
    loaders = ','.join(
        f"{name}_dataloader=dict(batch_size=4,sampler=dict(type='DefaultSampler',shuffle=False),dataset={dataset})"
        for name, dataset in dict(bank=bank, query=query).items()
    )
    return f"custom_hooks=[dict(type='KNNHook',k=2,{loaders})]"


def folder(name: str) -> str:
    return f"dict(type='CustomDataset',data_root='data/{name}',pipeline={PIPELINE},serialize_data=False)"


def test_neighbours_know_nothing_of_the_classes_of_the_training(tool):
    bank = f"dict(batch_size=4,sampler=dict(type='DefaultSampler',shuffle=False),dataset={folder('unknown')})"
    options = [f"test_cfg=dict(type='KNNLoop',k=2,bank_dataloader={bank})", *of('test', 'data_root=data/unknown')]
    # Its features need not tell a new class.
    assert 'knn/accuracy: ' in tool('test.py', 'model.pth', options=options)


def test_neighbours_of_other_folders(tool, images):
    out = tool('train.py', '--no-validate', options=['load_from=model.pth', knn_hook(folder('all'), folder('lacks'))])
    assert "KNNHook.query_dataloader.dataset lacks 'ant' of the classes of KNNHook.bank_dataloader.dataset" in out
    assert 'Epoch 0: kNN accuracy 100.00 %' in out
    line = tool('train.py', options=[knn_hook(folder('all'), folder('unknown'))], fails=True)
    assert line.startswith('error: KNNHook.query_dataloader.dataset (3 classes) has other classes than KNNHook.bank')
    content = dict(
        metainfo=dict(classes=['ant', 'bee', 'cat']), data_list=[dict(img_path='ant/0.png', gt_label=[0, 2])] * 3
    )
    (images / 'data' / 'several.json').write_text(json.dumps(content))
    several = f"dict(type='MultiLabelDataset',ann_file='data/several.json',data_prefix='data/all',pipeline={PIPELINE})"
    line = tool('train.py', options=[knn_hook(several, several)], fails=True)
    assert line.startswith('error: KNNHook.bank_dataloader.dataset has several labels a sample (gt_label=[0, 2])')
