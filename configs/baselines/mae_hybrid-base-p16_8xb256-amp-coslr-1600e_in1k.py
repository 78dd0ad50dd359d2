# MAE (arXiv 2111.06377): every hidden token is rebuilt from all visible ones, three quarters are hidden.
_base_ = '../map/map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(neck=dict(attention='full'), masking=dict(ratio=0.75))
