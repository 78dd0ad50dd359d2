# Autoregressive pretraining patch by patch.
_base_ = './ar_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(backbone=dict(serialization='token'))
