_base_ = './cls_adamw.py'

# Fine-tuning as MAE does it (arXiv 2111.06377, table 9): base size.
optim_wrapper = dict(
    # 5e-4 for every 256 images of the global batch.
    optimizer=dict(lr=5e-4 * 1024 / 256),
    # MAE's 0.65 for each of ViT-B's 12 blocks leaves the embedding 0.65 ** 13 = 0.0037 of the learning rate. The hybrid
    # has 32 blocks of about half the parameters each, where 0.65 would leave it 7e-7, that is, frozen. This rate for
    # each of its blocks leaves 0.0037 as well.
    paramwise_cfg=dict(layer_decay_rate=0.65 ** (13 / 33)),
)
auto_scale_lr = dict(base_batch_size=1024, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    # MAE's 1e-6 as a share: an absolute minimum would lift the layers whose learning rate is decayed below it.
    dict(
        type='CosineAnnealingLR',
        T_max=95,
        eta_min_ratio=5e-4,
        by_epoch=True,
        begin=5,
        end=100,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
