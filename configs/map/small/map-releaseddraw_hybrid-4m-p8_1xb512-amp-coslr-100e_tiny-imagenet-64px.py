# One ratio a batch for all images, drawn between 30 and 70 %, as the released code does; the paper says 50 %.
_base_ = './map_hybrid-4m-p8_1xb512-amp-coslr-100e_tiny-imagenet-64px.py'

model = dict(masking=dict(ratio=(0.3, 0.7)))
