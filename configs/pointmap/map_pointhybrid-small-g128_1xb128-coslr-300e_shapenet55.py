# The same with 128 groups, for tasks with 2048 points.
_base_ = './map_pointhybrid-small_1xb128-coslr-300e_shapenet55.py'

model = dict(backbone=dict(num_groups=128))
