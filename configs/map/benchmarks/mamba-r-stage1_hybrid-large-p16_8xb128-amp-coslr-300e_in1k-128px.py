_base_ = './mamba-r-stage1_hybrid-base-p16_8xb128-amp-coslr-300e_in1k-128px.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(reduction=8),
)
