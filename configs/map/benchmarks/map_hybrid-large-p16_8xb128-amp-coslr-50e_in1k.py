_base_ = './map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.2,
        # Blocks are computed anew in the backward pass, or 128 images a GPU would not fit into its 80 GB.
        with_cp=True,
        init_cfg=dict(checkpoint='work_dirs/map_hybrid-large-p16_16xb128-amp-coslr-1600e_in1k/epoch_1600.pth'),
    ),
)

optim_wrapper = dict(
    # MAE's figures for ViT-L and ViT-H: 1e-3 for every 256 images.
    optimizer=dict(lr=1e-3 * 1024 / 256),
    # 0.75 for each of ViT-L's 24 blocks, spread over 64.
    paramwise_cfg=dict(layer_decay_rate=0.75 ** (25 / 65)),
)

# Half of the epochs, as MAE does for large and huge.
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    # 1e-6 at the end, as for base.
    dict(
        type='CosineAnnealingLR',
        T_max=45,
        eta_min_ratio=2.5e-4,
        by_epoch=True,
        begin=5,
        end=50,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=50)
