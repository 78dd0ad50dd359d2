# The classifier, the augmentation and the batch of the fine-tuning, from random weights. Figures of DeiT
# (arXiv 2012.12877).
_base_ = '../map/benchmarks/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py'

model = dict(
    backbone=dict(
        # Mamba-R's for 224 px at this size; DeiT's 0.1 is for a smaller model.
        drop_path_rate=0.4,
        init_cfg=None,
    ),
    head=dict(init_cfg=dict(std=0.02)),
)

optim_wrapper = dict(
    # 5e-4 for every 512 images of the global batch.
    optimizer=dict(lr=5e-4 * 1024 / 512),
    # There are no pretrained layers to spare.
    paramwise_cfg=dict(layer_decay_rate=1.0),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=295,
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=300,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=300, val_interval=5)
