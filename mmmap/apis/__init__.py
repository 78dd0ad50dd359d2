from .examples import Example, config_points, example_batches, example_parts, takes_clouds
from .models import build_model, example_inputs, load_clouds, load_first, load_images, load_model, stored_model

__all__ = [
    'Example',
    'build_model',
    'config_points',
    'example_batches',
    'example_inputs',
    'example_parts',
    'load_clouds',
    'load_first',
    'load_images',
    'load_model',
    'stored_model',
    'takes_clouds',
]
