_base_ = './map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)
