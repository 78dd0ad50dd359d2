_base_ = './upernet_hybrid-base-p16_8xb2-amp-poly-160k_ade20k-512px.py'

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(in_channels=192, out_channels=192),
    decode_head=dict(in_channels=[192] * 4),
    auxiliary_head=dict(in_channels=192),
)
