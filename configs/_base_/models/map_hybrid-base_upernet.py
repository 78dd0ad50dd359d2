# UPerNet (arXiv 1807.10221) with an auxiliary FCN head, as MAE and BEiT measure semantic segmentation.
# Its batch norm would need the images of several GPUs at two images each; group norm needs none.
norm_cfg = dict(type='GN', num_groups=32)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=(512, 512),
        seg_pad_val=255,
        # Whole patches in tests, where images have any size; predictions for the padding are cut off.
        test_cfg=dict(size_divisor=16),
    ),
    # Four taps, a quarter of the depth apart. Positions are stored for the training crops: resized once, on loading.
    backbone=dict(
        type='MAPHybrid', arch='base', img_size=512, patch_size=16, out_type='featmap', out_indices=(7, 15, 23, 31)
    ),
    # Strides 4, 8, 16 and 32. The width is the backbone's, but not more than that of the head.
    neck=dict(type='SimpleFeaturePyramid', in_channels=768, out_channels=512, scales=(4, 2, 1, 0.5)),
    decode_head=dict(
        type='UPerHead',
        in_channels=[512] * 4,
        in_index=(0, 1, 2, 3),
        pool_scales=(1, 2, 3, 6),
        # As for Swin and ViT-Adapter; 768 in MAE's and BEiT's.
        channels=512,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=512,
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4),
    ),
    train_cfg={},
    # Windows of the training size, two thirds of it apart, as in MAE's and BEiT's configs; their logits are averaged.
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
