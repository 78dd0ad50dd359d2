from .region_causal_decoder import RegionCausalDecoder

__all__ = ['RegionCausalDecoder']
