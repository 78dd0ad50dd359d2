from .formatting import PackPointInputs
from .load_image import LoadImageChecked
from .load_random_resized_crop import LoadRandomResizedCrop
from .points import (
    PointsDropout,
    PointsJitter,
    PointsNormalize,
    PointsRotate,
    PointsSample,
    PointsScaleTranslate,
    PointsShuffle,
)

__all__ = [
    'LoadImageChecked',
    'LoadRandomResizedCrop',
    'PackPointInputs',
    'PointsDropout',
    'PointsJitter',
    'PointsNormalize',
    'PointsRotate',
    'PointsSample',
    'PointsScaleTranslate',
    'PointsShuffle',
]
