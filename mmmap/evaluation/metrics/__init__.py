from .scene_seg_metric import SceneSegMetric

__all__ = ['SceneSegMetric']
