from .confusion import confusion_counts, score_table, segmentation_scores
from .detection_confusion import box_overlaps, detection_confusion
from .frozen_features import extract_features, extract_share, gather_shares, pooled_feature
from .knn import knn_accuracy, knn_scores
from .metrics import DetectionConfusionMetric, PartIoUMetric, PixelConfusionMetric, SceneSegMetric
from .part_scores import part_iou, part_scores

__all__ = [
    'DetectionConfusionMetric',
    'PartIoUMetric',
    'PixelConfusionMetric',
    'SceneSegMetric',
    'box_overlaps',
    'confusion_counts',
    'detection_confusion',
    'extract_features',
    'extract_share',
    'gather_shares',
    'knn_accuracy',
    'knn_scores',
    'part_iou',
    'part_scores',
    'pooled_feature',
    'score_table',
    'segmentation_scores',
]
