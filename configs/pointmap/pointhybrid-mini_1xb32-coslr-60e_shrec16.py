# SHREC-16 from the pretraining on its own shapes.
_base_ = [
    '../_base_/models/point-classifier_hybrid-small.py',
    '../_base_/datasets/shrec16_bs32_cls.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=96, layout='MMMT', num_heads=4, mlp_ratio=4.0),
        num_groups=32,
        group_size=16,
        drop_path_rate=0.0,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/map_pointhybrid-mini_1xb32-coslr-200e_shrec16/epoch_200.pth',
            prefix='backbone.',
        ),
    ),
    head=dict(num_classes={{_base_.num_classes}}),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=32, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=55, by_epoch=True, begin=5, end=60, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=60, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=10, max_keep_ckpts=1))
