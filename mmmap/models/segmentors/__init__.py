from .average_point_score_tta import AveragePointScoreTTA
from .point_segmentor import PointSegmentor
from .scene_segmentor import SceneSegmentor, SceneTestCfg

__all__ = ['AveragePointScoreTTA', 'PointSegmentor', 'SceneSegmentor', 'SceneTestCfg']
