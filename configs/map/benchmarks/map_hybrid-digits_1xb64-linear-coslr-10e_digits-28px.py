# Linear probe of the demo's checkpoint: the frozen backbone's averaged tokens, normalised over the batch as MAE's probe
# does, and one linear layer.
_base_ = './map_hybrid-digits_1xb64-finetune-coslr-10e_digits-28px.py'

model = dict(
    # All four blocks, hence all of the backbone.
    backbone=dict(frozen_stages='all'),
    neck=dict(type='ClsBatchNormNeck'),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=0.0),
)

# Batch norm cannot take a last batch of one sample, which some numbers of processes give.
train_dataloader = dict(drop_last=True)
