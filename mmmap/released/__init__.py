"""The released MAP, Mamba-R and PointMAP code: its models, its initialisation, and conversion of its checkpoints."""

from mmmap.models.layers.weight_init import WEIGHT_INITS, init_linears

from .point_backbone import ReleasedPointMAPHybrid
from .point_decoder import ReleasedPointDecoder

# The released MAP code initialises Mamba's step sizes as linear layers.
WEIGHT_INITS['released'] = init_linears

__all__ = ['ReleasedPointDecoder', 'ReleasedPointMAPHybrid']
