_base_ = './upernet_hybrid-base-p16_8xb2-amp-poly-160k_ade20k-512px.py'

model = dict(
    backbone=dict(
        arch='large',
        out_indices=(15, 31, 47, 63),
        # BEiT's for large.
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
    neck=dict(in_channels=1024),
)

# BEiT-L's rate at 640 pixels is 2e-5 with a decay of 0.95 for each of 24 blocks. Ours keeps the fall of the fine-tuning
# on ImageNet, 0.75 ** 25 over the whole depth, and with it the rate of the smaller sizes.
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.75 ** (25 / 65)))
