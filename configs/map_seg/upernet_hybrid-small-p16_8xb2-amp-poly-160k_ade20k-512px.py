_base_ = './upernet_hybrid-base-p16_8xb2-amp-poly-160k_ade20k-512px.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-small-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(in_channels=384, out_channels=384),
    decode_head=dict(in_channels=[384] * 4),
    auxiliary_head=dict(in_channels=384),
)
