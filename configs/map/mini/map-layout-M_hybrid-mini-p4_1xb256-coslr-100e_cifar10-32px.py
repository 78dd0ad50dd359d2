# Mamba blocks only.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(backbone=dict(arch=dict(layout='M' * 8)))
