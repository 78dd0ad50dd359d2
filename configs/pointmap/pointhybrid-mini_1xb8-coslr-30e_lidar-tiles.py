# Airborne LiDAR tiles, trained from scratch: an example of scenes for a CPU.
_base_ = [
    '../_base_/models/point-scenes_hybrid-small.py',
    '../_base_/datasets/lidar-tiles_block_bs8_seg.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    segmentor=dict(
        backbone=dict(
            in_channels={{_base_.in_channels}},
            arch=dict(_delete_=True, embed_dim=96, layout='MMMT', num_heads=4, mlp_ratio=4.0),
            num_groups=128,
            group_size=16,
            out_indices=(1, 3),
            drop_path_rate=0.0,
        ),
        neck=dict(out_channels=96),
        head=dict(num_classes={{_base_.num_classes}}),
    ),
    test_cfg={{_base_.scene_test_cfg}},
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=27, by_epoch=True, begin=3, end=30, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1), visualization=dict(type='PointSegVisualizationHook', interval=1)
)
