# Autoregressive pretraining in MAP's regions: the next row of patches from all rows before it.
_base_ = './ar_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(backbone=dict(serialization='row'))
