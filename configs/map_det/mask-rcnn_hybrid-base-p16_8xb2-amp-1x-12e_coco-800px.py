_base_ = [
    '../_base_/models/mask-rcnn_hybrid-base.py',
    '../_base_/datasets/coco_800px.py',
    '../_base_/schedules/det_adamw_bs16_12e.py',
    '../_base_/det_runtime.py',
]
