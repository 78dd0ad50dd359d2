# The decoder goes token by token.
_base_ = '../map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(neck=dict(attention='causal'))
