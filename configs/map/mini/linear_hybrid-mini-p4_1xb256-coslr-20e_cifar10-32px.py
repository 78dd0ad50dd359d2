# Linear probe: the frozen backbone's averaged tokens, normalised over the batch as MAE's probe does, and one layer.
_base_ = './finetune_hybrid-mini-p4_1xb256-coslr-50e_cifar10-32px.py'

model = dict(
    # All blocks, hence all of the backbone.
    backbone=dict(frozen_stages='all'),
    neck=dict(type='ClsBatchNormNeck'),
    head=dict(loss=dict(_delete_=True, type='CrossEntropyLoss')),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0),
)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=20, by_epoch=True, begin=0, end=20, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=20)

# Batch norm cannot take a last batch of one sample, which some numbers of processes give.
train_dataloader = dict(drop_last=True)
