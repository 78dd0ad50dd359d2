from .feature_propagation import FeaturePropagation
from .next_region_decoder import NextRegionDecoder
from .region_causal_decoder import RegionCausalDecoder
from .register_neck import RegisterNeck
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = [
    'FeaturePropagation',
    'NextRegionDecoder',
    'RegionCausalDecoder',
    'RegisterNeck',
    'SimpleFeaturePyramid',
]
