# All Transformer blocks first.
_base_ = '../map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(backbone=dict(arch=dict(_delete_=True, embed_dim=768, layout='T' * 8 + 'M' * 24, num_heads=12)))
