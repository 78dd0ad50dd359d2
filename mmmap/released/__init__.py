"""The released MAP, Mamba-R and PointMAP code: what its models compute, and how its checkpoints become ours."""

from .point_backbone import ReleasedPointMAPHybrid
from .point_decoder import ReleasedPointDecoder

__all__ = ['ReleasedPointDecoder', 'ReleasedPointMAPHybrid']
