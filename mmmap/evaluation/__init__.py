from .features import extract_features, pooled_feature
from .functional import knn_accuracy, knn_scores
from .response import area_of_half, effective_receptive_field, token_responses

__all__ = [
    'area_of_half',
    'effective_receptive_field',
    'extract_features',
    'knn_accuracy',
    'knn_scores',
    'pooled_feature',
    'token_responses',
]
