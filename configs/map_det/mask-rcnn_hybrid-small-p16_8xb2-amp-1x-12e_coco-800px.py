_base_ = './mask-rcnn_hybrid-base-p16_8xb2-amp-1x-12e_coco-800px.py'

model = dict(
    backbone=dict(
        arch='small',
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-small-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(in_channels=384),
)
