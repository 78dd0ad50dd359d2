from .block import Block, Context, register_block
from .grid_windows import GridWindows
from .hybrid_encoder import HybridEncoder
from .local_aggregation import LocalAggregation
from .mamba_mixer import MambaMixer
from .mixer_block import MambaBlock, MixerBlock
from .point_grouping import PointTokenizer, group_points
from .position_encoding import CoordinatePositionEncoding, LearnedPositionEmbedding
from .serialization import GridSerialization, PointSerialization, grid_coords, register_order
from .tokens import CloudTokens, GridTokens, Tokens
from .transformer_block import DecoderBlock, TransformerBlock
from .weight_init import init_linears

__all__ = [
    'Block',
    'CloudTokens',
    'Context',
    'CoordinatePositionEncoding',
    'DecoderBlock',
    'GridSerialization',
    'GridTokens',
    'GridWindows',
    'HybridEncoder',
    'LearnedPositionEmbedding',
    'LocalAggregation',
    'MambaBlock',
    'MambaMixer',
    'MixerBlock',
    'PointSerialization',
    'PointTokenizer',
    'Tokens',
    'TransformerBlock',
    'grid_coords',
    'group_points',
    'init_linears',
    'register_block',
    'register_order',
]
