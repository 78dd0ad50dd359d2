from .models import build_model, example_inputs, load_clouds, load_first, load_images, load_model, stored_model

__all__ = [
    'build_model',
    'example_inputs',
    'load_clouds',
    'load_first',
    'load_images',
    'load_model',
    'stored_model',
]
