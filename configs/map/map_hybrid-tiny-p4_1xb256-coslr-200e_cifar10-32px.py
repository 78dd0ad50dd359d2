# CIFAR-10 through mmpretrain's data set, which downloads it on first use. 8 x 8 tokens of 4 x 4 pixels.
_base_ = [
    '../_base_/models/map_hybrid-base.py',
    '../_base_/datasets/cifar10_bs256_map.py',
    '../_base_/schedules/map_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='tiny', img_size=32, patch_size=4, drop_path_rate=0.0),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=256, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=190, by_epoch=True, begin=10, end=200, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200)

default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=10))
custom_hooks = [
    dict(type='ReconstructionHook', interval=10),
    dict(
        type='KNNHook',
        bank_dataloader=_base_.bank_dataloader,
        query_dataloader=_base_.query_dataloader,
        interval=20,
    ),
]
