# Nothing is hidden: all tokens are rebuilt, a mere autoencoder.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(masking=dict(ratio=0.0))
