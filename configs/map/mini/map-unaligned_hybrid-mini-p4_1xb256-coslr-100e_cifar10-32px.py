# The scans go by rows, the prediction goes by columns.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(backbone=dict(regions='column'))
