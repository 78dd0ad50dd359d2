_base_ = './map_adamw.py'

optim_wrapper = dict(
    type='AmpOptimWrapper',
    dtype='bfloat16',
    # bfloat16 has float32's range: no loss scaling needed.
    loss_scale=dict(enabled=False),
    # The released script's rule: 5e-4 for every 512 images of the global batch.
    optimizer=dict(lr=5e-4 * 2048 / 512),
)
# Other batch sizes get a proportional learning rate.
auto_scale_lr = dict(base_batch_size=2048, enable=True)

# Warm-up, start, end and number of epochs as released; stepped each iteration instead of each epoch.
param_scheduler = [
    dict(type='LinearLR', start_factor=5e-4, by_epoch=True, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        T_max=1595,
        eta_min=1e-5,
        by_epoch=True,
        begin=5,
        end=1600,
        convert_to_iter_based=True,
    ),
]

# The released script also keeps a moving average of the weights (EMA, 0.99996), a default of the supervised code it
# is based on. MAE's and our checkpoints are the weights themselves; mmengine's EMAHook adds the average.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1600)
