_base_ = [
    '../_base_/models/fcos_hybrid-tiny.py',
    '../_base_/datasets/coco-boxes_800px.py',
    '../_base_/schedules/det_adamw_bs16_12e.py',
    '../_base_/det_runtime.py',
]
