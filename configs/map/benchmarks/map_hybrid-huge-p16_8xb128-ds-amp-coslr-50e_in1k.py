_base_ = ['./map_hybrid-huge-p16_8xb128-amp-coslr-50e_in1k.py', '../../_base_/strategies/deepspeed.py']

# The precision is the strategy's.
optim_wrapper = dict(
    _delete_=True,
    type='DeepSpeedOptimWrapper',
    optimizer=_base_.optim_wrapper.optimizer,
    constructor=_base_.optim_wrapper.constructor,
    paramwise_cfg=_base_.optim_wrapper.paramwise_cfg,
)
# No moving average: it would be a whole copy of the model on every GPU.
custom_hooks = []
