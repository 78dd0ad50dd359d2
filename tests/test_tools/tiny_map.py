"""A MAP pretraining run of seconds: generated images of 32 pixels, one Mamba and one Transformer block.

The folder of images comes from the environment, as the config is loaded in another process.
"""

default_scope = 'mmpretrain'
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True)
model = dict(
    type='MAP',
    backbone=dict(
        type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), img_size=32, patch_size=8
    ),
    neck=dict(type='RegionCausalDecoder', in_dim=16, grid=4, embed_dim=16, depth=1, num_heads=2),
    head=dict(type='PixelReconstructionHead', in_dim=16, patch_size=8),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root='{{$TINY_MAP_DATA:data/tiny}}',
        with_label=False,
        pipeline=[dict(type='LoadImageChecked'), dict(type='PackInputs')],
    ),
)
optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', optimizer=dict(type='AdamW', lr=1e-3))
train_cfg = dict(by_epoch=True, max_epochs=2)
randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
)
