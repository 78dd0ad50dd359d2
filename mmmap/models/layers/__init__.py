from .grid_windows import GridWindows
from .hybrid_encoder import HybridEncoder, MambaBlock
from .local_aggregation import LocalAggregation
from .mamba_mixer import MambaMixer
from .point_grouping import PointTokenizer, group_points
from .position_encoding import CoordinatePositionEncoding, LearnedPositionEmbedding
from .released_point_encoder import ReleasedPointEncoder
from .serialization import GridSerialization, PointSerialization, Tokens, grid_coords, register_order
from .transformer_block import DecoderBlock, TransformerBlock
from .weight_init import init_linears

__all__ = [
    'CoordinatePositionEncoding',
    'DecoderBlock',
    'GridSerialization',
    'GridWindows',
    'HybridEncoder',
    'LearnedPositionEmbedding',
    'LocalAggregation',
    'MambaBlock',
    'MambaMixer',
    'PointSerialization',
    'PointTokenizer',
    'ReleasedPointEncoder',
    'Tokens',
    'TransformerBlock',
    'grid_coords',
    'group_points',
    'init_linears',
    'register_order',
]
