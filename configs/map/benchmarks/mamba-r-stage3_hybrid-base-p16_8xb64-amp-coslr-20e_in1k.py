# Stage 3 of Mamba-R's training: 20 epochs with RandAugment and smoothed labels, every image once an epoch.
_base_ = './mamba-r-stage2_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py'

load_from = 'work_dirs/mamba-r-stage2_hybrid-base-p16_8xb128-amp-coslr-100e_in1k/epoch_100.pth'
model = dict(head=dict(loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')))

train_dataloader = dict(
    batch_size=64,
    sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=[_base_.crop, _base_.flip, _base_.rand_augment, _base_.pack]),
)
val_dataloader = dict(
    dataset=dict(
        pipeline=[
            _base_.load,
            # The released evaluation: nothing of the shorter edge is cut off.
            dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
            dict(type='CenterCrop', crop_size=224),
            _base_.pack,
        ]
    )
)
test_dataloader = val_dataloader

# The released script does not scale this one to the batch, and its minimum is the same 1e-5: after the warm-up the
# learning rate is constant.
optim_wrapper = dict(optimizer=dict(lr=1e-5, weight_decay=0.1))
auto_scale_lr = dict(_delete_=True, enable=False)

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=15,
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=20,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=20, val_interval=1)
default_hooks = dict(checkpoint=dict(interval=1))
