# S3DIS, trained from scratch on the areas other than 5. Six folds: ../../docs/en/point_clouds.md.
_base_ = [
    '../_base_/models/point-scenes_hybrid-small.py',
    '../_base_/datasets/s3dis_block_bs16_seg.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    segmentor=dict(
        backbone=dict(in_channels={{_base_.in_channels}}),
        head=dict(num_classes={{_base_.num_classes}}),
    ),
    test_cfg={{_base_.scene_test_cfg}},
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=90, by_epoch=True, begin=10, end=100, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    visualization=dict(type='PointSegVisualizationHook'),
)
