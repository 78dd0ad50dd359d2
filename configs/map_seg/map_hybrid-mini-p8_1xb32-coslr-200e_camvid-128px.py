# Pretraining for the segmentation of CamVid, on its 367 training images.
_base_ = [
    '../_base_/models/map_hybrid-mini.py',
    '../_base_/datasets/camvid_bs32_map.py',
    '../_base_/schedules/map_adamw.py',
    '../_base_/default_runtime.py',
]

# 16 x 16 tokens of 8 x 8 pixels.
model = dict(
    backbone=dict(img_size=128, patch_size=8),
)

optim_wrapper = dict(optimizer=dict(lr=1e-3, betas=(0.9, 0.95)))
auto_scale_lr = dict(base_batch_size=32, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=190, by_epoch=True, begin=10, end=200, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200)

default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=20, max_keep_ckpts=1))
custom_hooks = [dict(type='ReconstructionHook', interval=20)]
