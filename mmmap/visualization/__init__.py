from .cloud_drawing import Cloud, draw_clouds, label_colours, make_palette
from .cloud_results import draw_point_reconstruction, draw_segmentation, save_point_reconstruction
from .image_reconstruction import draw_reconstruction, to_pixels
from .response_maps import draw_receptive_fields, draw_token_responses
from .training_curves import plot_curves, read_scalars

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
