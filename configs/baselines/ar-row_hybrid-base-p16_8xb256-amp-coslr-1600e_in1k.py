# Autoregressive pretraining in MAP's regions: the next row of patches from all rows before it.
_base_ = './ar_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(backbone=dict(serialization='row'))
