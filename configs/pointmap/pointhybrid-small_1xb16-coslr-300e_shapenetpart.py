# Parts of ShapeNetPart from the pretraining on ShapeNet-55.
_base_ = [
    '../_base_/models/point-parts_hybrid-small.py',
    '../_base_/datasets/shapenetpart_bs16_part.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/map_pointhybrid-small-g128_1xb128-coslr-300e_shapenet55/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    neck=dict(num_categories={{_base_.num_categories}}),
    head=dict(num_classes={{_base_.num_classes}}, category_parts={{_base_.category_parts}}),
)

optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(base_batch_size=16, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=290, by_epoch=True, begin=10, end=300, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    checkpoint=dict(interval=10, save_best='instance_mIoU'),
    visualization=dict(type='PointSegVisualizationHook'),
)
