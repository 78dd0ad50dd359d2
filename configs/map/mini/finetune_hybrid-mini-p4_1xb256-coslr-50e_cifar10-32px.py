# End-to-end fine-tuning of what the configs beside it pretrain; without a checkpoint, training from scratch.
_base_ = [
    '../../_base_/datasets/cifar10_bs256_cls.py',
    '../../_base_/schedules/map_adamw.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    type='HybridClassifier',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=32,
        patch_size=4,
        out_type='avg_featmap',
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=256, enable=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=45, by_epoch=True, begin=5, end=50, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50, val_interval=5)
val_cfg = {}
test_cfg = {}

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=5, max_keep_ckpts=1))
