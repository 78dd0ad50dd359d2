# What every end-to-end training of a classifier shares.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    # bfloat16 has float32's range: no loss scaling needed.
    loss_scale=dict(enabled=False),
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    # Exempts norms, biases, positions, registers, A_log and D from the weight decay.
    constructor='LayerDecayOptimWrapperConstructor',
)
val_cfg = {}
test_cfg = {}
