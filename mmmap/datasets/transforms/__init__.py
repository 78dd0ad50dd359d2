from .load_image import LoadImageChecked
from .load_random_resized_crop import LoadRandomResizedCrop

__all__ = ['LoadImageChecked', 'LoadRandomResizedCrop']
