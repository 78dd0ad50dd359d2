# The optimizer of Mamba3D's and Point-MAE's recipes; norms, biases, positions and Mamba's A_log and D do not decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    constructor='LayerDecayOptimWrapperConstructor',
    clip_grad=dict(max_norm=10.0),
)
