# Parts of COSEG and of human bodies, trained from scratch.
_base_ = [
    '../_base_/models/point-parts_hybrid-small.py',
    '../_base_/datasets/coseg-human_bs16_part.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=96, layout='MMMT', num_heads=4, mlp_ratio=4.0),
        num_groups=128,
        group_size=16,
        drop_path_rate=0.0,
        out_indices=(1, 3),
    ),
    neck=dict(out_channels=96, num_categories={{_base_.num_categories}}),
    head=dict(num_classes={{_base_.num_classes}}, category_parts={{_base_.category_parts}}),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=16, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=27, by_epoch=True, begin=3, end=30, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=5, max_keep_ckpts=1),
    visualization=dict(type='PointSegVisualizationHook', interval=38),
)
