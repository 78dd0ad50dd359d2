from .dense_confusion_metrics import DetectionConfusionMetric, PixelConfusionMetric
from .part_iou_metric import PartIoUMetric
from .scene_seg_metric import SceneSegMetric

__all__ = ['DetectionConfusionMetric', 'PartIoUMetric', 'PixelConfusionMetric', 'SceneSegMetric']
