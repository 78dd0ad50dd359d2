# DINO (arXiv 2203.03605) on a plain backbone, with the figures of mmdet's DINO with four levels. What of its layers is
# not named here are their defaults.
attention = dict(embed_dims=256, num_levels=4, dropout=0.0)
feed_forward = dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.0)
model = dict(
    type='DINO',
    num_queries=900,
    with_box_refine=True,
    as_two_stage=True,
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
    # Patches have 16 pixels: strides 8, 16, 32 and 64, as many as `num_levels` of the attention.
    neck=dict(type='SimpleFeaturePyramid', in_channels=192, scales=(2, 1, 0.5, 0.25)),
    encoder=dict(num_layers=6, layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=feed_forward)),
    decoder=dict(
        num_layers=6,
        return_intermediate=True,
        layer_cfg=dict(
            self_attn_cfg=dict(embed_dims=256, num_heads=8, dropout=0.0),
            cross_attn_cfg=attention,
            ffn_cfg=feed_forward,
        ),
        post_norm_cfg=None,
    ),
    positional_encoding=dict(num_feats=128, normalize=True, offset=0.0, temperature=20),
    bbox_head=dict(
        type='DINOHead',
        num_classes=80,
        sync_cls_avg_factor=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=5.0),
        loss_iou=dict(type='GIoULoss', loss_weight=2.0),
    ),
    # Queries of noisy true boxes, as many as make 100 in an image.
    dn_cfg=dict(
        label_noise_scale=0.5, box_noise_scale=1.0, group_cfg=dict(dynamic=True, num_groups=None, num_dn_queries=100)
    ),
    train_cfg=dict(
        assigner=dict(
            type='HungarianAssigner',
            match_costs=[
                dict(type='FocalLossCost', weight=2.0),
                dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
                dict(type='IoUCost', iou_mode='giou', weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=300),
)
