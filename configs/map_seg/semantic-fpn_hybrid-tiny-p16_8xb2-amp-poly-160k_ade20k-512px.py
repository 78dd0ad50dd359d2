# The head of Semantic FPN (arXiv 1901.02446), with the figures of mmseg's config; group norm as in UPerNet.
_base_ = './upernet_hybrid-tiny-p16_8xb2-amp-poly-160k_ade20k-512px.py'

model = dict(
    neck=dict(out_channels=256),
    decode_head=dict(
        _delete_=True,
        type='FPNHead',
        in_channels=[256] * 4,
        in_index=(0, 1, 2, 3),
        # Those of the pyramid.
        feature_strides=[4, 8, 16, 32],
        channels=128,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='GN', num_groups=32),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
