"""The registries of mmmap's components, which are mmengine's root registries.

Those of mmpretrain, mmseg and mmdet fall back to them, so that ``type='MAPHybrid'`` works under every
``default_scope``. So does ``type='mmmap.MAPHybrid'``: each root has a child of the scope ``mmmap``, which looks there.
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
    Registry,
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


class _Scope(Registry):
    """An empty registry that looks names up in its parent, with and without the scope in front."""

    def get(self, key: str) -> type | None:
        return self.parent.get(key.removeprefix('mmmap.'))


for _name in __all__:
    _Scope(globals()[_name].name, parent=globals()[_name], scope='mmmap')
