# The optimizer of every pretraining config. The constructor exempts norms, biases, positions, learned tokens, A_log and
# D from weight decay. The released script also decays A_log, the mask token and the decoder's positions; Mamba's
# authors exempt A_log, MAE's the other two.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='LayerDecayOptimWrapperConstructor',
)
