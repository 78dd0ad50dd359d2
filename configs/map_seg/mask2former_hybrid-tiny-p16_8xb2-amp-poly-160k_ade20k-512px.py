# The head of Mask2Former (arXiv 2112.01527), with the figures of mmseg's config. Its parts are mmdet's, which must be
# installed; what of their layers is not named here are their defaults.
_base_ = './upernet_hybrid-tiny-p16_8xb2-amp-poly-160k_ade20k-512px.py'
custom_imports = dict(imports=['mmmap', 'mmdet.models'], allow_failed_imports=False)

attention = dict(embed_dims=256, num_heads=8, batch_first=True)
position = dict(num_feats=128, normalize=True)
model = dict(
    neck=dict(out_channels=256),
    decode_head=dict(
        _delete_=True,
        type='Mask2FormerHead',
        in_channels=[256] * 4,
        strides=[4, 8, 16, 32],
        feat_channels=256,
        out_channels=256,
        num_classes=150,
        num_queries=100,
        num_transformer_feat_level=3,
        align_corners=False,
        pixel_decoder=dict(
            type='mmdet.MSDeformAttnPixelDecoder',
            num_outs=3,
            norm_cfg=dict(type='GN', num_groups=32),
            act_cfg=dict(type='ReLU'),
            encoder=dict(
                num_layers=6,
                layer_cfg=dict(
                    self_attn_cfg=dict(embed_dims=256, num_heads=8, num_levels=3, dropout=0.0, batch_first=True),
                    ffn_cfg=dict(embed_dims=256, feedforward_channels=1024, ffn_drop=0.0),
                ),
            ),
            positional_encoding=position,
        ),
        positional_encoding=position,
        transformer_decoder=dict(
            return_intermediate=True,
            num_layers=9,
            layer_cfg=dict(
                self_attn_cfg=attention,
                cross_attn_cfg=attention,
                ffn_cfg=dict(embed_dims=256, feedforward_channels=2048, ffn_drop=0.0),
            ),
        ),
        loss_cls=dict(
            type='mmdet.CrossEntropyLoss', use_sigmoid=False, loss_weight=2.0, class_weight=[1.0] * 150 + [0.1]
        ),
        loss_mask=dict(type='mmdet.CrossEntropyLoss', use_sigmoid=True, loss_weight=5.0),
        loss_dice=dict(type='mmdet.DiceLoss', naive_dice=True, eps=1.0, loss_weight=5.0),
        train_cfg=dict(
            num_points=12544,
            oversample_ratio=3.0,
            importance_sample_ratio=0.75,
            assigner=dict(
                type='mmdet.HungarianAssigner',
                match_costs=[
                    dict(type='mmdet.ClassificationCost', weight=2.0),
                    dict(type='mmdet.CrossEntropyLossCost', weight=5.0, use_sigmoid=True),
                    dict(type='mmdet.DiceCost', weight=5.0, pred_act=True, eps=1.0),
                ],
            ),
            sampler=dict(type='mmdet.MaskPseudoSampler'),
        ),
    ),
    auxiliary_head=None,
)

# As in Mask2Former, whose losses of nine layers of the decoder add up.
optim_wrapper = dict(clip_grad=dict(max_norm=0.01, norm_type=2))
