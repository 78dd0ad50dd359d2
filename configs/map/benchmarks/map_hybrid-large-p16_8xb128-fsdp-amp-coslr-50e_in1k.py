_base_ = ['./map_hybrid-large-p16_8xb128-amp-coslr-50e_in1k.py', '../../_base_/strategies/fsdp.py']

# No moving average: it would be a whole copy of the model on every GPU.
custom_hooks = []
