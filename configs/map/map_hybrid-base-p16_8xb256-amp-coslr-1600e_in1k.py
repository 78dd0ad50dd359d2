_base_ = [
    '../_base_/models/map_hybrid-base.py',
    '../_base_/datasets/imagenet_bs256_map.py',
    '../_base_/schedules/map_adamw_bs2048_coslr_1600e.py',
    '../_base_/default_runtime.py',
]

# A checkpoint of 1600 epochs is worth less disk than 1600 of them.
default_hooks = dict(checkpoint=dict(interval=5, max_keep_ckpts=3))

# Original, masked and rebuilt images side by side, in the visualizer and as PNG files of the work directory.
custom_hooks = [dict(type='ReconstructionHook', interval=20)]
