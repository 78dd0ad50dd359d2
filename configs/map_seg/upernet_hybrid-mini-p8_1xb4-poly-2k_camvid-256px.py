# CamVid with a small backbone, for a CPU, from what the pretraining on the same images writes.
_base_ = [
    '../_base_/models/map_hybrid-base_upernet.py',
    '../_base_/datasets/camvid_bs4_seg.py',
    '../_base_/seg_runtime.py',
]

norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    data_preprocessor=dict(size=(256, 256), seg_pad_val=11, test_cfg=dict(size_divisor=8)),
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=128, layout='MMMT' * 2, num_heads=4),
        img_size=256,
        patch_size=8,
        out_indices=(3, 5, 7),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/map_hybrid-mini-p8_1xb32-coslr-200e_camvid-128px/epoch_200.pth',
            prefix='backbone.',
        ),
    ),
    # Patches of 8 pixels: strides 4, 8 and 16.
    neck=dict(in_channels=128, out_channels=64, scales=(2, 1, 0.5)),
    decode_head=dict(
        in_channels=[64] * 3, in_index=(0, 1, 2), channels=64, num_classes=11, norm_cfg=norm_cfg, ignore_index=11
    ),
    auxiliary_head=dict(in_channels=64, in_index=1, channels=64, num_classes=11, norm_cfg=norm_cfg, ignore_index=11),
    test_cfg=dict(crop_size=(256, 256), stride=(170, 170)),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    # One rate for all layers, as without a checkpoint.
    constructor='LayerDecayOptimWrapperConstructor',
)
auto_scale_lr = dict(base_batch_size=4, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=100),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=100, end=2000),
]
# 92 iterations are an epoch.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2000, val_interval=250)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=250, max_keep_ckpts=1),
    # Every 25th image in training, all 101 in a test.
    visualization=dict(draw=True, interval=25),
)
