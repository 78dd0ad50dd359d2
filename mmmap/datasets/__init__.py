from .decoded_images import DecodedImages  # noqa: F401
from .few_shot import FewShotFold  # noqa: F401
from .image_folder import ImageFolder  # noqa: F401
from .image_shards import ImageShards  # noqa: F401
from .modelnet import ModelNet40, ModelNetFewShot  # noqa: F401
from .samplers import InTurnBatchSampler, ShardSampler  # noqa: F401
from .scanobjectnn import ScanObjectNN  # noqa: F401
from .scenes import S3DISScenes, ScanNetScenes, SceneDataset  # noqa: F401
from .shape_dataset import PointCloudArrays  # noqa: F401
from .shapenet import ShapeNet55, ShapeNetPart  # noqa: F401
from .transforms import *  # noqa: F403
