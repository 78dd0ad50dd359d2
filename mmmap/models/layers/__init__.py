from .grid_windows import GridWindows
from .hybrid_encoder import HybridEncoder, MambaBlock
from .local_aggregation import LocalAggregation
from .mamba_mixer import MambaMixer
from .point_grouping import PointTokenizer, group_points
from .position_encoding import CoordinatePositionEncoding, LearnedPositionEmbedding
from .released_point_encoder import ReleasedPointEncoder, ReleasedTokens
from .serialization import GridSerialization, PointSerialization, grid_coords, register_order
from .tokens import CloudTokens, GridTokens, Tokens
from .transformer_block import DecoderBlock, TransformerBlock
from .weight_init import init_linears

__all__ = [
    'CloudTokens',
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
    'PointSerialization',
    'PointTokenizer',
    'ReleasedPointEncoder',
    'ReleasedTokens',
    'Tokens',
    'TransformerBlock',
    'grid_coords',
    'group_points',
    'init_linears',
    'register_order',
]
