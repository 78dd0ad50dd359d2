# FCOS (arXiv 1904.01355) on a plain backbone, with the figures of mmdet's configs.
model = dict(
    type='FCOS',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='MAPHybrid',
        arch='tiny',
        # The grid of the pretraining; each batch has it resized to its own.
        img_size=224,
        patch_size=16,
        out_type='featmap',
        init_cfg=dict(
            type='Pretrained',
            # Where the pretraining config writes by default.
            checkpoint='work_dirs/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    # Patches have 16 pixels: the strides 8, 16, 32, 64 and 128 of the head's points.
    neck=dict(type='SimpleFeaturePyramid', in_channels=192, scales=(2, 1, 0.5, 0.25, 0.125)),
    bbox_head=dict(
        type='FCOSHead',
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        strides=[8, 16, 32, 64, 128],
        norm_cfg=dict(type='GN', num_groups=32),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='IoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
    ),
)
