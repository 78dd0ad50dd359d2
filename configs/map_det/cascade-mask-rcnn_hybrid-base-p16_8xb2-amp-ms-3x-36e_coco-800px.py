_base_ = [
    '../_base_/models/cascade-mask-rcnn_hybrid-base.py',
    '../_base_/datasets/coco_ms-800px.py',
    '../_base_/schedules/det_adamw_bs16_36e.py',
    '../_base_/det_runtime.py',
]
