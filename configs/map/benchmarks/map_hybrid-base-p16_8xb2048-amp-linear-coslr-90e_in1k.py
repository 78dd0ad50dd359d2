# Linear probe as MAE does it (arXiv 2111.06377, table 10), of the mean of the image tokens: there is no class token.
_base_ = [
    '../../_base_/models/map_hybrid-base_avgpool.py',
    '../../_base_/datasets/imagenet_bs128_cls.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        # All blocks, and what is before and behind them.
        frozen_stages='all',
        init_cfg=dict(
            type='Pretrained',
            # Where the pretraining config writes by default.
            checkpoint='work_dirs/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k/epoch_1600.pth',
            prefix='backbone.',
        ),
    ),
    # Brings features of any scale to the same one; not learned.
    neck=dict(type='ClsBatchNormNeck'),
)

train_dataloader = dict(
    batch_size=2048,
    # Batch norm cannot take a last batch of one sample, which some numbers of processes give.
    drop_last=True,
    num_workers=16,
    dataset=dict(pipeline=[_base_.crop, _base_.flip, _base_.pack]),
)

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    # 0.1 for every 256 images of the global batch.
    optimizer=dict(type='LARS', lr=0.1 * 16384 / 256, momentum=0.9, weight_decay=0.0),
)
auto_scale_lr = dict(base_batch_size=16384, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=True, begin=0, end=10, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=80,
        eta_min=0.0,
        by_epoch=True,
        begin=10,
        end=90,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90)
val_cfg = {}
test_cfg = {}
