_base_ = './mask-rcnn_hybrid-base-p16_8xb8-amp-lsj-100e_coco-1024px.py'

model = dict(
    backbone=dict(
        arch='tiny',
        drop_path_rate=0.0,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(in_channels=192),
)
