# Autoregressive pretraining patch by patch.
_base_ = './ar_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(backbone=dict(serialization='token'))
