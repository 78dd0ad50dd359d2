# The same under the rule of MAE: every group is rebuilt from all visible ones.
_base_ = './map_pointhybrid-mini_1xb32-coslr-200e_shrec16.py'

model = dict(neck=dict(attention='full'))
