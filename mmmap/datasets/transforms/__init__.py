from .formatting import PackPointInputs, PackSmallImage
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
from .scenes import (
    LoadScene,
    PointFeatureNormalize,
    PointsColorAutoContrast,
    PointsColorDrop,
    PointsColorJitter,
    SceneCrop,
    SceneFeatures,
    VoxelSample,
)

__all__ = [
    'LoadImageChecked',
    'LoadRandomResizedCrop',
    'LoadScene',
    'PackPointInputs',
    'PackSmallImage',
    'PointFeatureNormalize',
    'PointsColorAutoContrast',
    'PointsColorDrop',
    'PointsColorJitter',
    'PointsDropout',
    'PointsJitter',
    'PointsNormalize',
    'PointsRotate',
    'PointsSample',
    'PointsScaleTranslate',
    'PointsShuffle',
    'SceneCrop',
    'SceneFeatures',
    'VoxelSample',
]
