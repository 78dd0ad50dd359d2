# The same without pretraining, to compare with.
_base_ = './upernet_hybrid-mini-p8_1xb4-poly-2k_camvid-256px.py'

model = dict(backbone=dict(init_cfg=None))
