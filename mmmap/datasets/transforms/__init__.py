from .load_image import LoadImageChecked

__all__ = ['LoadImageChecked']
