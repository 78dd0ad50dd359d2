from .scene_segmentor import SceneSegmentor, SceneTestCfg

__all__ = ['SceneSegmentor', 'SceneTestCfg']
