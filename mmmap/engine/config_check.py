"""Looks over a config before anything is built from it: types and ranges that would end a run late, or bend it."""

import difflib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry

from .annotations import wrong_arguments
from .config_rules import KNOWN_KEYS, NEEDED_KEYS, RULES, TOP_LEVEL_KEYS
from .errors import UserError

# The registry of what is below a key, the nearest counts; elsewhere nothing is known.
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


def walk(part: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every part of a config, from the top down, with the keys and indices that lead to it."""
    yield path, part
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list | tuple) else ()
    for step, value in items:
        yield from walk(value, (*path, step))


def dotted(path: tuple) -> str:
    """``model.pipeline[2].type`` of its keys and indices."""
    return ''.join(f'[{step}]' if isinstance(step, int) else f'.{step}' for step in path).lstrip('.')


def find_class(part: dict, path: tuple) -> Callable | None:
    """The class that a part of a config is built into, if that can be told from where it stands."""
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
    # A package of the scope that is not installed; building says so.
    except Exception:
        return None


def near_type(name: str) -> str:
    """``'; did you mean X?'`` of a misspelt type, ``''`` where no class is like it."""
    names: set[str] = set()
    for at in {id(at): at for at in _REGISTRIES.values()}.values():
        names.update(at.module_dict, *(child.module_dict for child in at.children.values()))
    near = difflib.get_close_matches(name.split('.')[-1], names, n=1, cutoff=0.75)
    return f'; did you mean {near[0]}?' if near else ''


def check_config(cfg: Config) -> list[str]:
    """Look a config over, with its default scope in force from here on.

    Args:
        cfg (Config): The config of a run.

    Returns:
        list[str]: What the user should know, one line each: keys at the top that look like a misspelt one.

    Raises:
        UserError: If a value is of a type or in a range that cannot be meant.
    """
    scope = cfg.get('default_scope')
    scope = 'mmengine' if scope is None else scope
    if not isinstance(scope, str) or (scope not in registry.MODELS.children and find_spec(scope) is None):
        raise UserError(f'{cfg.filename}: default_scope: there is no package {scope!r}')
    registry.init_default_scope(scope)
    for path, value in walk(cfg._cfg_dict):
        # What no tool reads may be anything.
        if path and (path[0] not in TOP_LEVEL_KEYS):
            continue
        complaint = _complaint(path, value)
        if complaint is not None:
            raise UserError(f'{cfg.filename}: {complaint}' if cfg.filename else complaint)
    messages = []
    for key in cfg:
        if key not in TOP_LEVEL_KEYS and len(key) > 3:
            # One letter that is wrong, missing, too many or swapped, so that names like test_pipeline are left alone.
            near = difflib.get_close_matches(key, set(TOP_LEVEL_KEYS) - set(cfg), n=1, cutoff=0.999 - 1 / len(key))
            messages += [f'{cfg.filename}: nothing reads the key {key}; did you mean {name}?' for name in near]
    return messages


def _complaint(path: tuple, value: Any) -> str | None:
    """What is wrong with the value of one place."""
    key, where = '.'.join(map(str, path)), dotted(path)
    for pattern, rule in RULES:
        if pattern.fullmatch(key) and not rule.test(value):
            return f'{where}: expected {rule.expected}, got {value!r}'
    if not isinstance(value, dict):
        return None
    for pattern, known, cutoff in KNOWN_KEYS:
        for name in value if pattern.fullmatch(key) else ():
            near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
            if name not in known and not name.startswith('_') and near:
                return f'{where}.{name}: nothing reads this key; did you mean {near[0]}?'
    for pattern, needed in NEEDED_KEYS:
        if pattern.fullmatch(key) and not any(name in value for name in needed):
            return f'{where}: the key {" or ".join(needed)} is missing, it has {", ".join(map(str, value)) or "none"}'
    if 'type' in value and not isinstance(value['type'], str) and not callable(value['type']):
        return f'{where}.type: expected the name of a class, got {value["type"]!r}'
    name = value.get('type')
    # As mmengine finds it, which would call None at the first batch.
    if path[-1:] == ('collate_fn',) and isinstance(name, str) and registry.FUNCTIONS.get(name) is None:
        return f'{where}.type: there is no function {name!r}'
    kind = find_class(value, path)
    if kind is not None:
        ours = kind.__module__.split('.')[0] == 'mmmap'
        for name, wrong in wrong_arguments(value, kind, sure=not ours):
            return f'{where}.{name}: {wrong}'
    return None
