_base_ = './mamba-r-stage1_hybrid-base-p16_8xb128-amp-coslr-300e_in1k-128px.py'

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(reduction=1),
)
