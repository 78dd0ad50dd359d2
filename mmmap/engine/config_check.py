"""Checks a config before anything is built from it: types, ranges and misspelt keys."""

import difflib
from importlib.util import find_spec
from typing import Any

from mmengine import registry
from mmengine.config import Config

from ..utils.errors import UserError
from .config_parts import dotted, find_class, walk
from .config_rules import KNOWN_KEYS, NEEDED_KEYS, RULES, TOP_LEVEL_KEYS
from .type_hints import wrong_arguments


def check_config(cfg: Config) -> list[str]:
    """Check the config of a run, and set mmengine's default scope to that of the config.

    Returns a line for each top-level key that looks misspelt.

    Raises:
        UserError: If a value has a wrong type or is out of range.
    """
    scope = cfg.get('default_scope')
    scope = 'mmengine' if scope is None else scope
    if not isinstance(scope, str) or (scope not in registry.MODELS.children and find_spec(scope) is None):
        raise UserError(f'{cfg.filename}: default_scope: there is no package {scope!r}')
    registry.init_default_scope(scope)
    for path, value in walk(cfg._cfg_dict):
        # Keys that no tool reads may hold anything.
        if path and (path[0] not in TOP_LEVEL_KEYS):
            continue
        complaint = _complaint(path, value)
        if complaint is not None:
            raise UserError(f'{cfg.filename}: {complaint}' if cfg.filename else complaint)
    messages = []
    for key in cfg:
        if key not in TOP_LEVEL_KEYS and len(key) > 3:
            # The cutoff allows one letter that is wrong, missing, extra or swapped: test_pipeline gives no warning.
            near = difflib.get_close_matches(key, set(TOP_LEVEL_KEYS) - set(cfg), n=1, cutoff=0.999 - 1 / len(key))
            messages += [f'{cfg.filename}: nothing reads the key {key}; did you mean {name}?' for name in near]
    return messages


def _complaint(path: tuple, value: Any) -> str | None:
    """Say what is wrong with the value at one place of a config, None if nothing is."""
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
    # mmengine looks it up in this way, and would call None at the first batch.
    if path[-1:] == ('collate_fn',) and isinstance(name, str) and registry.FUNCTIONS.get(name) is None:
        return f'{where}.type: there is no function {name!r}'
    kind = find_class(value, path)
    if kind is not None:
        ours = kind.__module__.split('.')[0] == 'mmmap'
        for name, wrong in wrong_arguments(value, kind, sure=not ours):
            return f'{where}.{name}: {wrong}'
    return None
