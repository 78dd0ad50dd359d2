_base_ = './linear_hybrid-base-p16_8xb2-amp-poly-40k_ade20k-512px.py'

model = dict(
    backbone=dict(
        arch='large',
        frozen_stages='all',
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    decode_head=dict(in_channels=1024, channels=1024),
)
