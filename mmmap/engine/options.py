"""Settings of a config on the command line."""

import argparse
import ast
import copy
import difflib
import re
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict, DictAction

from .config_rules import TOP_LEVEL_KEYS
from .errors import UserError

_FORM = 'the form is KEY=VALUE, with quotes around a list or a dict: KEY="[1,2]", KEY="[dict(type=\'CompileHook\')]"'

# What Python's parser reads. Braces in other values are text, as in `epoch_{}.pth`.
_WITH_DICTS = re.compile(r'\s*(?=[\[({]|dict\s*\().*(\bdict\s*\(|\{).*[\])}]\s*', re.DOTALL)


class CfgOptions(DictAction):
    """mmengine's ``DictAction``, which also reads dicts and ends with one line where it cannot read a value.

    ``a=1``, ``a=x``, ``a=1,2`` and ``a="[1,(2,3)]"`` mean what they mean to mmengine. A value that is or holds
    ``dict(...)`` or ``{...}`` is read as Python's literals are, where names without quotes are strings.
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
                    setattr(
                        namespace, self.dest, {**options, key: _literal(ast.parse(value.strip(), mode='eval').body)}
                    )
                else:
                    super().__call__(parser, namespace, [text], option_string)
            # mmengine's parser does not end on brackets that it does not know, and asserts that they are balanced.
            except (SyntaxError, ValueError, AssertionError, RecursionError):
                parser.exit(2, f'error: {option_string} {text}: cannot read {value!r}; {_FORM}\n')


def _literal(node: ast.expr) -> Any:
    """The value of a literal; ``dict(...)`` is one, and so is a name, for a string."""
    match node:
        case ast.Call(func=ast.Name(id='dict'), args=[], keywords=keywords):
            if any(keyword.arg is None for keyword in keywords):
                raise ValueError('dict(**...)')
            return {keyword.arg: _literal(keyword.value) for keyword in keywords}
        case ast.Dict(keys=keys, values=values):
            if None in keys:
                raise ValueError('{**...}')
            return {_literal(key): _literal(value) for key, value in zip(keys, values, strict=True)}
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
        options (dict[str, Any]): Values by dotted key, of :class:`CfgOptions`.

    Raises:
        UserError: If a key starts with a name that neither the config has nor a Runner reads, or does not fit
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
    """Put an empty dict where a part of a config is None, as ``init_cfg`` often is, so that keys can be set in it."""
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
    """Raise if a setting has no place in a config."""
    part, path = cfg._cfg_dict, []
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
