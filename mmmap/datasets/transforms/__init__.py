from .load_image import LoadImageChecked
from .load_random_resized_crop import LoadRandomResizedCrop
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
    'PointFeatureNormalize',
    'PointsColorAutoContrast',
    'PointsColorDrop',
    'PointsColorJitter',
    'SceneCrop',
    'SceneFeatures',
    'VoxelSample',
]
