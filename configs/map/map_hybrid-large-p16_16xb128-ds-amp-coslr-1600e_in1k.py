_base_ = ['./map_hybrid-large-p16_16xb128-amp-coslr-1600e_in1k.py', '../_base_/strategies/deepspeed.py']

# The precision is the strategy's.
optim_wrapper = dict(
    _delete_=True,
    type='DeepSpeedOptimWrapper',
    optimizer=_base_.optim_wrapper.optimizer,
    constructor=_base_.optim_wrapper.constructor,
)
# No pictures of reconstructions: the model is wrapped, and partly in bfloat16.
custom_hooks = []
