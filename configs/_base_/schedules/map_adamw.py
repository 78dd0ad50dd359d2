# The optimizer of every pretraining config, and what it does not decay.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        # No decay of biases, norms and D. The released script also decays A_log, the mask token and the decoder's
        # positions; Mamba's authors exempt A_log, MAE's the other two.
        flat_decay_mult=0.0,
        # The mixers hold D and the biases of both directions as matrices.
        custom_keys={
            'pos_embed': dict(decay_mult=0.0),
            'mask_token': dict(decay_mult=0.0),
            'A_log': dict(decay_mult=0.0),
            'mixer.D': dict(decay_mult=0.0),
            'mixer.conv_bias': dict(decay_mult=0.0),
            'mixer.dt_proj_bias': dict(decay_mult=0.0),
        },
    ),
)
