# The methods at the size of CIFAR-10. On two CPU cores this takes hours; README.md beside it says what fits an hour.
_base_ = [
    '../../_base_/models/map_hybrid-mini.py',
    '../../_base_/datasets/cifar10_bs256_map.py',
    '../../_base_/schedules/map_adamw.py',
    '../../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=256, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, by_epoch=True, begin=5, end=100, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=5, max_keep_ckpts=1))
