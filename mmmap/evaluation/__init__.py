from .functional import knn_accuracy
from .response import area_of_half, effective_receptive_field, token_responses

__all__ = ['area_of_half', 'effective_receptive_field', 'knn_accuracy', 'token_responses']
