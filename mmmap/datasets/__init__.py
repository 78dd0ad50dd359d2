from .scenes import S3DISScenes, ScanNetScenes, SceneDataset
from .transforms import (
    LoadImageChecked,
    LoadRandomResizedCrop,
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
    'S3DISScenes',
    'ScanNetScenes',
    'SceneCrop',
    'SceneDataset',
    'SceneFeatures',
    'VoxelSample',
]
