# The head of RTMDet (arXiv 2212.07784) on a plain backbone, with the figures of mmdet's RTMDet-l. Its three levels have
# norms of their own over the channels of a map, where mmdet has norms over the batch.
model = dict(
    type='RTMDet',
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
    # Patches have 16 pixels: the strides 8, 16 and 32 of the head's points.
    neck=dict(type='SimpleFeaturePyramid', in_channels=192, scales=(2, 1, 0.5)),
    bbox_head=dict(
        type='RTMDetSepBNHead',
        num_classes=80,
        in_channels=256,
        stacked_convs=2,
        feat_channels=256,
        anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16, 32]),
        bbox_coder=dict(type='DistancePointBBoxCoder'),
        loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        with_objectness=False,
        exp_on_reg=True,
        share_conv=True,
        pred_kernel_size=1,
        norm_cfg=dict(type='mmpretrain.LN2d'),
        act_cfg=dict(type='SiLU', inplace=True),
    ),
    train_cfg=dict(
        assigner=dict(type='DynamicSoftLabelAssigner', topk=13), allowed_border=-1, pos_weight=-1, debug=False
    ),
    test_cfg=dict(
        nms_pre=30000, min_bbox_size=0, score_thr=0.001, nms=dict(type='nms', iou_threshold=0.65), max_per_img=300
    ),
)
