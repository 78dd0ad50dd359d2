# Linear probe: the frozen backbone's averaged tokens, normalised over the batch as MAE's probe does, and one layer.
_base_ = './finetune_hybrid-4m-p8_1xb512-amp-coslr-30e_tiny-imagenet-64px.py'

model = dict(
    # All blocks, hence all of the backbone.
    backbone=dict(frozen_stages='all'),
    neck=dict(type='ClsBatchNormNeck'),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')),
)

# Batch norm cannot take a last batch of one image.
train_dataloader = dict(drop_last=True)

optim_wrapper = dict(
    _delete_=True,
    type='AmpOptimWrapper',
    dtype='bfloat16',
    loss_scale=dict(enabled=False),
    optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=20)
