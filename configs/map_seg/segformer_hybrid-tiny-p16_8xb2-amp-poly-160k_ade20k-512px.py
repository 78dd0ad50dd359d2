# The head of SegFormer (arXiv 2105.15203), which is 1x1 convolutions alone, on the pyramid; group norm as in UPerNet.
_base_ = './upernet_hybrid-tiny-p16_8xb2-amp-poly-160k_ade20k-512px.py'

model = dict(
    decode_head=dict(
        _delete_=True,
        type='SegformerHead',
        in_channels=[192] * 4,
        in_index=(0, 1, 2, 3),
        channels=256,
        dropout_ratio=0.1,
        num_classes=150,
        norm_cfg=dict(type='GN', num_groups=32),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=None,
)
