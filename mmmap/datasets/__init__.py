from .transforms import LoadImageChecked

__all__ = ['LoadImageChecked']
