from .next_region_decoder import NextRegionDecoder
from .region_causal_decoder import RegionCausalDecoder
from .register_neck import RegisterNeck

__all__ = ['NextRegionDecoder', 'RegionCausalDecoder', 'RegisterNeck']
