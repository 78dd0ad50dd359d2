# Nothing is hidden: all tokens are rebuilt, a mere autoencoder.
_base_ = '../map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'

model = dict(masking=dict(ratio=0.0))
