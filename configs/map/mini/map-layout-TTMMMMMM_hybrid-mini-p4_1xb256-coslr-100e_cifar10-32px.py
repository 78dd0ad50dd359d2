# All Transformer blocks first.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(backbone=dict(arch=dict(layout='T' * 2 + 'M' * 6)))
