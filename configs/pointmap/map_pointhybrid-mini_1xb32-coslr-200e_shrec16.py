# The training shapes of SHREC-16 without labels, on a small backbone: minutes on a CPU.
_base_ = [
    '../_base_/models/pointmap_hybrid-mini.py',
    '../_base_/datasets/shrec16_bs32_map.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=32, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=190, by_epoch=True, begin=10, end=200, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200)

default_hooks = dict(logger=dict(interval=5), checkpoint=dict(interval=20, max_keep_ckpts=1))
custom_hooks = [dict(type='PointReconstructionHook', interval=50)]
