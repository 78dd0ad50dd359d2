# The methods on Tiny-ImageNet: 100,000 images of 64 x 64 pixels. About 8 minutes of an H100, with
# `--compile reduce-overhead`.
_base_ = [
    '../../_base_/models/map_hybrid-4m.py',
    '../../_base_/datasets/tiny-imagenet_bs512_map.py',
    '../../_base_/schedules/map_adamw.py',
    '../../_base_/default_runtime.py',
]

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    # bfloat16 has float32's range: no loss scaling needed.
    loss_scale=dict(enabled=False),
    optimizer=dict(lr=2e-3, betas=(0.9, 0.95)),
)
auto_scale_lr = dict(base_batch_size=512, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=95, by_epoch=True, begin=5, end=100, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)

# The first ten iterations hardly move the weights: their mean loss tells whether a run starts as another did.
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=5, max_keep_ckpts=1))
