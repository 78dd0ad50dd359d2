from .point_segmentor import PointSegmentor
from .scene_segmentor import SceneSegmentor, SceneTestCfg

__all__ = ['PointSegmentor', 'SceneSegmentor', 'SceneTestCfg']
