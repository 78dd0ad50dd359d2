"""The registries that mmmap's components join.

These are mmengine's root registries. A child registry (mmpretrain, mmseg, mmdet) falls back to its parent, so a bare
``type='MAPHybrid'`` resolves under every ``default_scope`` once ``mmmap`` has been imported.
"""

from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPER_CONSTRUCTORS,
    OPTIM_WRAPPERS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)

__all__ = [
    'DATASETS',
    'DATA_SAMPLERS',
    'EVALUATOR',
    'HOOKS',
    'LOOPS',
    'METRICS',
    'MODELS',
    'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS',
    'TRANSFORMS',
    'VISBACKENDS',
    'VISUALIZERS',
]
