# Local MAE: a token sees its own row only.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(neck=dict(attention='local'))
