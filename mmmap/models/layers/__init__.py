from .grid_windows import GridWindows
from .hybrid_encoder import HybridEncoder, MambaBlock
from .mamba_mixer import MambaMixer
from .position_encoding import LearnedPositionEmbedding
from .serialization import GridSerialization, PointSerialization, Tokens, grid_coords, register_order
from .transformer_block import DecoderBlock, TransformerBlock
from .weight_init import init_linears

__all__ = [
    'DecoderBlock',
    'GridSerialization',
    'GridWindows',
    'HybridEncoder',
    'LearnedPositionEmbedding',
    'MambaBlock',
    'MambaMixer',
    'PointSerialization',
    'Tokens',
    'TransformerBlock',
    'grid_coords',
    'init_linears',
    'register_order',
]
