# End-to-end fine-tuning of what the configs beside it pretrain; without a checkpoint, training from scratch.
_base_ = [
    '../../_base_/datasets/tiny-imagenet_bs512_cls.py',
    '../../_base_/schedules/map_adamw.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    type='HybridClassifier',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=192, layout='MMMT' * 3, num_heads=6),
        img_size=64,
        patch_size=8,
        out_type='avg_featmap',
    ),
    head=dict(
        type='LinearClsHead',
        num_classes=200,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
    ),
)

optim_wrapper = dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=dict(enabled=False), optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=512, enable=True)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=3, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=27, by_epoch=True, begin=3, end=30, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=5)
val_cfg = {}
test_cfg = {}

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5, max_keep_ckpts=1))
