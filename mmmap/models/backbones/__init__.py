from .map_hybrid import MAPHybrid

__all__ = ['MAPHybrid']
