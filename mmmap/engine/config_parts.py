"""Visits the parts of a config, and finds the classes that they are built into."""

import difflib
from collections.abc import Callable, Iterator
from typing import Any

from mmengine import registry
from mmengine.registry import DefaultScope, Registry

#: The keys of a config with a data loader that a Runner builds.
DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# The registry for the types below a key; the innermost key counts.
_REGISTRIES = {
    'model': registry.MODELS,
    'data_preprocessor': registry.MODELS,
    'dataset': registry.DATASETS,
    'pipeline': registry.TRANSFORMS,
    'sampler': registry.DATA_SAMPLERS,
    'batch_sampler': registry.DATA_SAMPLERS,
    'default_hooks': registry.HOOKS,
    'custom_hooks': registry.HOOKS,
    'optim_wrapper': registry.OPTIM_WRAPPERS,
    'optimizer': registry.OPTIMIZERS,
    'param_scheduler': registry.PARAM_SCHEDULERS,
    'train_cfg': registry.LOOPS,
    'val_evaluator': registry.METRICS,
    'test_evaluator': registry.METRICS,
    'visualizer': registry.VISUALIZERS,
    'vis_backends': registry.VISBACKENDS,
}


def type_name(cfg_type: str | type) -> str:
    """Return the class name of a config's ``type``, given as a name, a scoped name or the class itself."""
    return cfg_type.split('.')[-1] if isinstance(cfg_type, str) else cfg_type.__name__


def walk(part: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every part of a config, outer parts first, with the keys and indices that lead to it."""
    yield path, part
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list | tuple) else ()
    for step, value in items:
        yield from walk(value, (*path, step))


def dotted(path: tuple) -> str:
    """Keys and indices as text, such as ``model.pipeline[2].type``."""
    return ''.join(f'[{step}]' if isinstance(step, int) else f'.{step}' for step in path).lstrip('.')


def find_class(part: dict, path: tuple) -> Callable | None:
    """The class that a part of a config is built into; None if its place ``path`` does not tell the registry."""
    name = part.get('type')
    if not isinstance(name, str):
        return name if callable(name) else None
    at: Registry | None = next((_REGISTRIES[step] for step in reversed(path) if step in _REGISTRIES), None)
    scope = DefaultScope.get_current_instance()
    if at is None:
        return None
    try:
        with at.switch_scope_and_registry(part.get('_scope_', scope and scope.scope_name)) as current:
            return current.get(name)
    # A package of the scope is not installed; building reports that.
    except Exception:
        return None


def dense_kind(cfg: dict) -> str | None:
    """``'segmentor'`` or ``'detector'`` if the model of a config is one of mmseg or mmdet; None for other models."""
    kind = find_class(cfg['model'], ('model',))
    bases = {base.__name__: base.__module__.split('.')[0] for base in getattr(kind, '__mro__', ())}
    known = (('segmentor', 'BaseSegmentor', 'mmseg'), ('detector', 'BaseDetector', 'mmdet'))
    return next((name for name, base, package in known if bases.get(base) == package), None)


def did_you_mean_type(name: str) -> str:
    """``'; did you mean X?'`` for a misspelt type, ``''`` if no class has a similar name."""
    names: set[str] = set()
    for at in {id(at): at for at in _REGISTRIES.values()}.values():
        names.update(at.module_dict, *(child.module_dict for child in at.children.values()))
    near = difflib.get_close_matches(name.split('.')[-1], names, n=1, cutoff=0.75)
    return f'; did you mean {near[0]}?' if near else ''
