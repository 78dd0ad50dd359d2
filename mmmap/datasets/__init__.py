from .transforms import LoadImageChecked, LoadRandomResizedCrop

__all__ = ['LoadImageChecked', 'LoadRandomResizedCrop']
