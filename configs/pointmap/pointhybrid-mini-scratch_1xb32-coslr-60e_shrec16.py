# The same without pretraining, to compare with.
_base_ = './pointhybrid-mini_1xb32-coslr-60e_shrec16.py'

model = dict(backbone=dict(init_cfg=None))
