from .decoded_images import DecodedImages
from .few_shot import FewShotFold
from .image_folder import ImageFolder
from .image_shards import ImageShards
from .modelnet import ModelNet40, ModelNetFewShot
from .samplers import InTurnBatchSampler, ShardSampler
from .scanobjectnn import ScanObjectNN
from .scenes import S3DISScenes, ScanNetScenes, SceneDataset
from .shapenet import ShapeNet55, ShapeNetPart
from .shapes import PointCloudArrays
from .transforms import (
    LoadImageChecked,
    LoadRandomResizedCrop,
    LoadScene,
    PackPointInputs,
    PackSmallImage,
    PointFeatureNormalize,
    PointsColorAutoContrast,
    PointsColorDrop,
    PointsColorJitter,
    PointsDropout,
    PointsJitter,
    PointsNormalize,
    PointsRotate,
    PointsSample,
    PointsScaleTranslate,
    PointsShuffle,
    SceneCrop,
    SceneFeatures,
    VoxelSample,
)

__all__ = [
    'DecodedImages',
    'FewShotFold',
    'ImageFolder',
    'ImageShards',
    'InTurnBatchSampler',
    'LoadImageChecked',
    'LoadRandomResizedCrop',
    'LoadScene',
    'ModelNet40',
    'ModelNetFewShot',
    'PackPointInputs',
    'PackSmallImage',
    'PointCloudArrays',
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
    'S3DISScenes',
    'ScanNetScenes',
    'ScanObjectNN',
    'SceneCrop',
    'SceneDataset',
    'SceneFeatures',
    'ShapeNet55',
    'ShapeNetPart',
    'ShardSampler',
    'VoxelSample',
]
