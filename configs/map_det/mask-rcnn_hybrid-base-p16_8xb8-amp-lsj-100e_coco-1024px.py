_base_ = [
    '../_base_/models/mask-rcnn_hybrid-base.py',
    '../_base_/datasets/coco_lsj-1024px.py',
    '../_base_/schedules/det_adamw_bs64_100e.py',
    '../_base_/det_runtime.py',
]

model = dict(
    # Every batch is padded to 1024 x 1024 pixels, in training and in testing alike: its positions are never resized.
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(img_size=1024),
)
