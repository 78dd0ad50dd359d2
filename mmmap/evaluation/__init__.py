from .confusion import confusion_counts, score_table, segmentation_scores
from .frozen_features import extract_features, extract_share, gather_shares, pooled_feature
from .knn import knn_accuracy, knn_scores
from .metrics import PartIoUMetric, SceneSegMetric
from .part_scores import part_iou, part_scores

__all__ = [
    'PartIoUMetric',
    'SceneSegMetric',
    'confusion_counts',
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
