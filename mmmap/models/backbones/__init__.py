from .map_hybrid import MAPHybrid
from .point_map_hybrid import PointFeatures, PointMAPHybrid

__all__ = ['MAPHybrid', 'PointFeatures', 'PointMAPHybrid']
