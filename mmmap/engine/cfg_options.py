"""Reads settings of a config from the command line, and merges them into the config."""

import argparse
import ast
import copy
import difflib
import re
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from ..utils.errors import UserError
from .config_rules import TOP_LEVEL_KEYS

_FORM = 'the form is KEY=VALUE, with quotes around a list or a dict: KEY="[1,2]", KEY="[dict(type=\'CompileHook\')]"'

# Values that are read with Python's parser. Braces elsewhere are text, as in `epoch_{}.pth`.
_WITH_DICTS = re.compile(r'\s*(?=[\[({]|dict\s*\().*(\bdict\s*\(|\{).*[\])}]\s*', re.DOTALL)


class CfgOptions(DictAction):
    """mmengine's ``DictAction`` that also reads dicts, and exits with one line if it cannot read a value.

    ``a=1``, ``a=x``, ``a=1,2`` and ``a="[1,(2,3)]"`` mean the same as in mmengine. A value with ``dict(...)`` or
    ``{...}`` is read as a Python literal, in which names without quotes are strings.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        """Add the settings to those of the namespace."""
        for text in values:
            key, equals, value = text.partition('=')
            if not equals or not key or re.search(r'\s', key):
                parser.exit(2, f'error: {option_string} {text}: {_FORM}\n')
            try:
                if _WITH_DICTS.fullmatch(value):
                    options = getattr(namespace, self.dest, None) or {}
                    literal = _literal(ast.parse(value.strip(), mode='eval').body)
                    setattr(namespace, self.dest, {**options, key: literal})
                else:
                    super().__call__(parser, namespace, [text], option_string)
            # mmengine's parser recurses without end on unknown brackets, and asserts that brackets are balanced.
            except (SyntaxError, ValueError, AssertionError, RecursionError):
                parser.exit(2, f'error: {option_string} {text}: cannot read {value!r}; {_FORM}\n')


def _literal(node: ast.expr) -> Any:
    """The value of a literal. ``dict(...)`` is allowed, and a name is a string."""
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            if any(keyword.arg is None for keyword in keywords):
                raise ValueError('dict(**...)')
            return {keyword.arg: _literal(keyword.value) for keyword in keywords}
        case ast.Dict(keys=keys, values=values):
            if any(key is None for key in keys):
                raise ValueError('{**...}')
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True) if key is not None}
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Name(id=name):
            return {'true': True, 'false': False}.get(name.lower(), name)
    return ast.literal_eval(node)


def apply_options(cfg: Config, options: dict[str, Any]) -> None:
    """Merge settings of the command line into a config, in place.

    Args:
        cfg (Config): The config of a run.
        options (dict[str, Any]): Values by dotted key, from :class:`CfgOptions`.

    Raises:
        UserError: If the first name of a key is not in the config and not read by a Runner, or if the key does not fit
            the config.
    """
    known = [*cfg, *TOP_LEVEL_KEYS]
    for key in options:
        top = key.split('.')[0]
        if top not in known:
            near = difflib.get_close_matches(top, known, n=1, cutoff=0.6)
            hint = f': did you mean {near[0]}?' if near else ''
            raise UserError(f'--cfg-options {key}: {top} is not in the config, and nothing would read it{hint}')
    options = {key: ConfigDict(value=value)['value'] for key, value in options.items()}
    for key in options:
        _make_room(cfg._cfg_dict, key.split('.')[:-1])
    try:
        cfg.merge_from_dict(copy.deepcopy(options))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError):
        for key, value in options.items():
            _fit(cfg, key, value)
        raise


def _make_room(part: Any, steps: list[str]) -> None:
    """Replace None on the way to a key, often ``init_cfg``, by an empty dict, so that the key can be set."""
    for step in steps:
        if isinstance(part, list | tuple) and step.isdigit() and int(step) < len(part):
            part = part[int(step)]
        elif isinstance(part, dict) and step in part:
            if part[step] is None:
                part[step] = ConfigDict()
            part = part[step]
        else:
            return


def _fit(cfg: Config, key: str, value: Any) -> None:
    """Raise if a setting does not fit a config."""
    part, path = cfg._cfg_dict, list[str]()
    for step in key.split('.'):
        where = '.'.join(path)
        if isinstance(part, list | tuple):
            if not step.isdigit() or int(step) >= len(part):
                raise UserError(f'--cfg-options {key}: {where} is a list of {len(part)}, which has no {step!r}')
            part = part[int(step)]
            if not isinstance(part, dict | list):
                raise UserError(f'--cfg-options {key}: {where} is a list of values: set it as a whole, {where}="[...]"')
        elif isinstance(part, dict):
            if step not in part:
                return
            part = part[step]
        else:
            raise UserError(f'--cfg-options {key}: {where} is {part!r}, which has no {step!r}; set {where} as a whole')
        path.append(step)
    if isinstance(value, dict) and not isinstance(part, dict | list):
        raise UserError(
            f'--cfg-options {key}: {key} is {part!r}, not a dict to add to: give the dict _delete_=True to replace it'
        )
