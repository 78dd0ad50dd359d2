# The target is not normalised.
_base_ = './map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'

model = dict(head=dict(norm_pix=False))
