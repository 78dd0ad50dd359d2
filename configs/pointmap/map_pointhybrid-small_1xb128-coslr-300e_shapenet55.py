# PointMAP on ShapeNet-55, the recipe of the pretraining of Mamba3D: its cfgs/pretrain.yaml has AdamW, 1e-3, 300 epochs,
# batch 128, a mask ratio of 0.6 and the squared Chamfer distance.
_base_ = [
    '../_base_/models/pointmap_hybrid-small.py',
    '../_base_/datasets/shapenet55_bs128_map.py',
    '../_base_/schedules/point_adamw.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=128, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=290, by_epoch=True, begin=10, end=300, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300)

default_hooks = dict(checkpoint=dict(interval=10))
custom_hooks = [dict(type='PointReconstructionHook', interval=25)]
