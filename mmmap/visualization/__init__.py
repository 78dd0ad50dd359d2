from .curves import plot_curves, read_scalars
from .points import (
    Cloud,
    draw_clouds,
    draw_point_reconstruction,
    draw_segmentation,
    label_colours,
    make_palette,
    save_point_reconstruction,
)
from .reconstruction import draw_reconstruction, to_pixels
from .response_maps import draw_receptive_fields, draw_token_responses

__all__ = [
    'Cloud',
    'draw_clouds',
    'draw_point_reconstruction',
    'draw_receptive_fields',
    'draw_reconstruction',
    'draw_segmentation',
    'draw_token_responses',
    'label_colours',
    'make_palette',
    'plot_curves',
    'read_scalars',
    'save_point_reconstruction',
    'to_pixels',
]
