"""Writes the difference of two configs as the file of a child config."""

from collections.abc import Mapping
from typing import Any

#: Longest line, as in the configs of mmmap.
WIDTH = 120
_FIRST = ('custom_imports', 'data_preprocessor', 'model', 'pretrained', 'init_cfg', 'backbone', 'neck')
_INDENT = '    '


def difference(base: Mapping, new: Mapping) -> dict[str, Any]:
    """What a child config must say so that a base becomes another config.

    ``_delete_=True`` stands where a dict of the base is replaced as a whole: where the types differ, or a key is gone.

    Args:
        base (Mapping): The base.
        new (Mapping): The config that is to come out; at the top it has all keys of the base.
    """
    changes: dict[str, Any] = {}
    for key, value in new.items():
        if key in base and base[key] == value and type(base[key]) is type(value):
            continue
        if key not in base or not isinstance(value, Mapping):
            changes[key] = value
        elif isinstance(base[key], Mapping) and _extends(base[key], value):
            changes[key] = difference(base[key], value)
        else:
            changes[key] = {'_delete_': True, **value}
    return changes


def _extends(base: Mapping, new: Mapping) -> bool:
    return base.get('type') == new.get('type') and base.keys() <= new.keys()


def without_scope(part: Any, scope: str) -> Any:
    """A part of a config without the notes of a package, ``_scope_``, that is the default one."""
    if isinstance(part, Mapping):
        kept = {key: without_scope(value, scope) for key, value in part.items()}
        return {key: value for key, value in kept.items() if (key, value) != ('_scope_', scope)}
    return type(part)(without_scope(item, scope) for item in part) if isinstance(part, list | tuple) else part


def config_text(reference: str, changes: Mapping, note: str) -> str:
    """The text of a child config.

    Args:
        reference (str): Its ``_base_``.
        changes (Mapping): See :func:`difference`.
        note (str): The comment at its head.
    """
    lines = [f'# {note}', f'_base_ = {reference!r}']
    # Also inside the model, from the pixels to the heads.
    ordered = _in_order(changes)
    if 'model' in ordered:
        ordered['model'] = _in_order(ordered['model'])
    lines += [f'{key} = {_value(value, len(key) + 3, "")}' for key, value in ordered.items()]
    return '\n'.join(lines) + '\n'


def _in_order(part: Mapping) -> dict:
    first = [key for key in _FIRST if key in part]
    return {key: part[key] for key in [*first, *(key for key in part if key not in first)]}


def _value(value: Any, column: int, indent: str) -> str:
    """A value as Python text, on one line if it fits behind ``column`` characters."""
    short = _short(value)
    if column + len(short) <= WIDTH - 1 or not isinstance(value, Mapping | list | tuple) or not value:
        return short
    inner = indent + _INDENT
    if isinstance(value, Mapping) and all(isinstance(key, str) and key.isidentifier() for key in value):
        parts = [f'{inner}{key}={_value(item, len(inner) + len(key) + 1, inner)},' for key, item in value.items()]
        opening, closing = 'dict(', ')'
    elif isinstance(value, Mapping):
        parts = [
            f'{inner}{key!r}: {_value(item, len(inner) + len(repr(key)) + 2, inner)},' for key, item in value.items()
        ]
        opening, closing = '{', '}'
    else:
        parts = [f'{inner}{_value(item, len(inner), inner)},' for item in value]
        opening, closing = ('(', ')') if isinstance(value, tuple) else ('[', ']')
    return '\n'.join([opening, *parts, indent + closing])


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return f'dict({", ".join(f"{key}={_short(item)}" for key, item in value.items())})'
        return f'{{{", ".join(f"{key!r}: {_short(item)}" for key, item in value.items())}}}'
    if isinstance(value, list):
        return f'[{", ".join(map(_short, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_short, value))}{"," if len(value) == 1 else ""})'
    return repr(value)
