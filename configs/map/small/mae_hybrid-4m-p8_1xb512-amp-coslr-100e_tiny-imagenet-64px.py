# MAE (arXiv 2111.06377): every hidden token is rebuilt from all visible ones, three quarters are hidden.
_base_ = './map_hybrid-4m-p8_1xb512-amp-coslr-100e_tiny-imagenet-64px.py'

model = dict(neck=dict(attention='full'), masking=dict(ratio=0.75))
