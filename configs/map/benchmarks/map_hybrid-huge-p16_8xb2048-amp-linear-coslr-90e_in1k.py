_base_ = './map_hybrid-base-p16_8xb2048-amp-linear-coslr-90e_in1k.py'

model = dict(
    backbone=dict(
        arch='huge',
        frozen_stages='all',
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-huge-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)
