from .functional import knn_accuracy

__all__ = ['knn_accuracy']
