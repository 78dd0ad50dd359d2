_base_ = './map_hybrid-base-p16_8xb2048-amp-linear-coslr-90e_in1k.py'

model = dict(
    backbone=dict(
        arch='huge',
        frozen_stages=48,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-huge-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(input_features=1536),
    head=dict(in_channels=1536),
)
