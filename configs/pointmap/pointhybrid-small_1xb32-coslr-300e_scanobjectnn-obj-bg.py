# OBJ_BG of ScanObjectNN: 128 groups for its 2048 points, as in Point-MAE.
_base_ = [
    '../_base_/models/point-classifier_hybrid-small.py',
    '../_base_/datasets/scanobjectnn_bs32_cls.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        num_groups=128,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/map_pointhybrid-small-g128_1xb128-coslr-300e_shapenet55/epoch_300.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(num_classes={{_base_.num_classes}}),
)

train_dataloader = dict(dataset=dict(variant='obj_bg'))
val_dataloader = dict(dataset=dict(variant='obj_bg'))
test_dataloader = val_dataloader

auto_scale_lr = dict(base_batch_size=32, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=290, by_epoch=True, begin=10, end=300, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(checkpoint=dict(interval=10, save_best='accuracy/top1'))
