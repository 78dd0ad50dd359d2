from .curves import plot_curves, read_scalars
from .reconstruction import draw_reconstruction, to_pixels
from .response_maps import draw_receptive_fields, draw_token_responses

__all__ = [
    'draw_receptive_fields',
    'draw_reconstruction',
    'draw_token_responses',
    'plot_curves',
    'read_scalars',
    'to_pixels',
]
