from .transforms import (
    LoadImageChecked,
    LoadRandomResizedCrop,
    PackPointInputs,
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
