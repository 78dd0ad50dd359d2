# One encoder learns from images and from clouds of points in turn, at a size for a CPU.
_base_ = [
    '../_base_/models/jointmap_hybrid-mini.py',
    '../_base_/datasets/cifar10-shrec16_bs32_map.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

model = dict(
    image=dict(data_preprocessor={{_base_.image_preprocessor}}),
    points=dict(data_preprocessor={{_base_.points_preprocessor}}),
)
# A step trains the parts of images or those of points.
find_unused_parameters = True

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=32, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, by_epoch=True, begin=5, end=100, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)

default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=5, max_keep_ckpts=1))
custom_hooks = [dict(type='ReconstructionHook', interval=25), dict(type='PointReconstructionHook', interval=25)]
