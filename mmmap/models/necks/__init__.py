from .region_causal_decoder import RegionCausalDecoder
from .register_neck import RegisterNeck

__all__ = ['RegionCausalDecoder', 'RegisterNeck']
