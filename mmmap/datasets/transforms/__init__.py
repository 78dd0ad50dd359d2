from .formatting import PackPointInputs, PackSmallImage
from .load_image import LoadImageChecked
from .load_random_resized_crop import LoadRandomResizedCrop
from .point_features import (
    PointFeatureNormalize,
    PointsColorAutoContrast,
    PointsColorDrop,
    PointsColorJitter,
)
from .point_transforms import (
    PointsDropout,
    PointsJitter,
    PointsNormalize,
    PointsRotate,
    PointsSample,
    PointsScaleTranslate,
    PointsShuffle,
)
from .scene_transforms import LoadScene, SceneCrop, SceneFeatures, VoxelSample

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
