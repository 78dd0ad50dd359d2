_base_ = [
    '../_base_/models/dino_hybrid-tiny.py',
    '../_base_/datasets/coco-boxes_800px.py',
    '../_base_/schedules/det_adamw_bs16_12e.py',
    '../_base_/det_runtime.py',
]

# Gradients are clipped as in DINO, whose losses of six layers of the decoder add up.
optim_wrapper = dict(clip_grad=dict(max_norm=0.1, norm_type=2))
