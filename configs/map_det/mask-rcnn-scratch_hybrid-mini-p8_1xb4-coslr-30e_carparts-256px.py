_base_ = './mask-rcnn_hybrid-mini-p8_1xb4-coslr-30e_carparts-256px.py'

model = dict(backbone=dict(init_cfg=None))
