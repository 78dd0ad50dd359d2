# MAE (arXiv 2111.06377): every hidden token is rebuilt from all visible ones, three quarters are hidden.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(neck=dict(attention='full'), masking=dict(ratio=0.75))
