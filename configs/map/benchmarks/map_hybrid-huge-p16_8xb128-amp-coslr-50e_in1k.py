_base_ = './map_hybrid-large-p16_8xb128-amp-coslr-50e_in1k.py'

model = dict(
    backbone=dict(
        arch='huge',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-huge-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)

# 0.75 for each of ViT-H's 32 blocks, spread over 48.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75 ** (33 / 49)))
