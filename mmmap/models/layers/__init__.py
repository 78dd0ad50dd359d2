from .hybrid_encoder import HybridEncoder, MambaBlock
from .mamba_mixer import MambaMixer
from .position_encoding import LearnedPositionEmbedding
from .serialization import Tokens, grid_coords, register_order, row_regions
from .transformer_block import DecoderBlock, TransformerBlock
from .weight_init import init_linears

__all__ = [
    'DecoderBlock',
    'HybridEncoder',
    'LearnedPositionEmbedding',
    'MambaBlock',
    'MambaMixer',
    'Tokens',
    'TransformerBlock',
    'grid_coords',
    'init_linears',
    'register_order',
    'row_regions',
]
