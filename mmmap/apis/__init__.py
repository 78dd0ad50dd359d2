from .dense_examples import is_detector, is_segmentor
from .example_batches import (
    ExampleBatch,
    example_batches,
    example_images,
    parts_with_inputs,
    points_per_cloud,
    takes_clouds,
)
from .input_loading import load_clouds, load_images, load_training_samples
from .model_loading import build_model, build_stored_model, load_weights

__all__ = [
    'ExampleBatch',
    'build_model',
    'build_stored_model',
    'example_batches',
    'example_images',
    'is_detector',
    'is_segmentor',
    'load_clouds',
    'load_images',
    'load_training_samples',
    'load_weights',
    'parts_with_inputs',
    'points_per_cloud',
    'takes_clouds',
]
