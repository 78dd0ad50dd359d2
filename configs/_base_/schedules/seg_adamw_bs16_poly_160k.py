# UPerNet on ADE20K as MAE's authors and BEiT's train it (arXiv 2111.06377, appendix A.4; arXiv 2106.08254, appendix):
# AdamW at a batch of 16 for 160,000 iterations, 1500 of warm-up, then a linear fall to 0.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    # bfloat16 has float32's range: no loss scaling needed.
    loss_scale=dict(enabled=False),
    # The rate of mmseg's config for MAE's base size.
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='LayerDecayOptimWrapperConstructor',
    # That config's 0.65 for each of ViT-B's 12 blocks leaves the embedding 0.65 ** 13 of the rate; this leaves the same
    # to a backbone of 32 blocks.
    paramwise_cfg=dict(layer_decay_rate=0.65 ** (13 / 33)),
)
auto_scale_lr = dict(base_batch_size=16, enable=True)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=160000),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
