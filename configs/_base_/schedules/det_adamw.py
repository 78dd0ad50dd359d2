# What every training of a detector shares: the figures of ViTDet for ViT-B (arXiv 2203.16527, appendix A.2).
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    # bfloat16 has float32's range: no loss scaling needed.
    loss_scale=dict(enabled=False),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1, fused=True),
    # Exempts norms, biases, positions, A_log and D from the weight decay.
    constructor='LayerDecayOptimWrapperConstructor',
    # 0.7 for each of ViT-B's 12 blocks leaves the embedding 0.7 ** 13 of the learning rate. This rate for each of the
    # hybrid's 32 leaves it as much.
    paramwise_cfg=dict(layer_decay_rate=0.7 ** (13 / 33)),
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
