_base_ = ['./map_hybrid-large-p16_16xb128-amp-coslr-1600e_in1k.py', '../_base_/strategies/fsdp.py']

# No pictures of reconstructions: the first process alone has no whole model to draw them with.
custom_hooks = []
