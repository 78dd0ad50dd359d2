from .part_iou_metric import PartIoUMetric
from .scene_seg_metric import SceneSegMetric

__all__ = ['PartIoUMetric', 'SceneSegMetric']
