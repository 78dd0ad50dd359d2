# The front door: the base-size recipe on ImageNet-1K.
_base_ = './map_hybrid-base-p16_8xb256-amp-coslr-1600e_in1k.py'
