"""Compares the arguments in a config with the type hints of the classes that get them."""

import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from numbers import Integral, Number, Real
from typing import Any, Literal, NamedTuple, Union


class Parameter(NamedTuple):
    """An argument of a class: its type hint and its default."""

    hint: Any
    default: Any


@cache
def arguments_of(kind: Callable) -> dict[str, Parameter]:
    """The arguments of a class or function by name. Arguments without a type hint have ``typing.Any``.

    Those of base classes are included where ``**kwargs`` go there.
    """
    calls = (
        [vars(base)['__init__'] for base in kind.__mro__ if '__init__' in vars(base)]
        if isinstance(kind, type)
        else [kind]
    )
    found: dict[str, Parameter] = {}
    for call in calls:
        try:
            signature = inspect.signature(call)
            hints = typing.get_type_hints(call)
        # A hint may name what only a type checker imports; functions in C have no signature.
        except Exception:
            return found
        goes_on = False
        for name, parameter in list(signature.parameters.items())[inspect.isclass(kind) :]:
            goes_on |= parameter.kind is parameter.VAR_KEYWORD
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(name, Parameter(hints.get(name, Any), parameter.default))
        if not goes_on:
            break
    for keyword, variant in vars(kind).get('variants', {}).items() if inspect.isclass(kind) else ():
        found[keyword] = arguments_of(variant)[keyword]
    return found


def fits(value: Any, hint: Any) -> bool:
    """Whether a value of a config fits a type hint.

    A list fits a tuple and a tuple a list. A dict fits any object that can be built from it.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return value in inner
    if origin is typing.Annotated:
        return fits(value, inner[0])
    # Since Python 3.11 Any is a class.
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    kind = origin or hint
    if kind is bool:
        return isinstance(value, bool) or (isinstance(value, int) and value in (0, 1))
    if kind is int:
        return isinstance(value, Integral)
    if kind is float:
        return isinstance(value, Real) and math.isfinite(value)
    if kind is str:
        return isinstance(value, str | os.PathLike)
    if not inspect.isclass(kind) or kind is object:
        return True
    if issubclass(kind, Number):
        return isinstance(value, kind)
    if issubclass(kind, Mapping):
        return isinstance(value, Mapping)
    if kind.__module__ in ('builtins', 'collections.abc') and hasattr(kind, '__iter__'):
        if isinstance(value, str | bytes | Mapping | Number | None):
            return False
        if not isinstance(value, list | tuple):
            return True
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return not inner or all(fits(item, inner[0]) for item in value)
    # torch's dtypes and devices are given by name; other objects are built from a dict.
    return isinstance(value, str) if kind.__module__ == 'torch' else isinstance(value, kind | Mapping)


def _is_number(hint: Any) -> bool:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return all(map(_is_number, typing.get_args(hint)))
    return hint in (int, float)


def hint_text(hint: Any) -> str:
    """A type hint as text."""
    return hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else str(hint).replace('typing.', '')


def wrong_arguments(part: dict, kind: Callable, sure: bool = False) -> Iterator[tuple[str, str]]:
    """Find arguments that do not fit the type hints of a class or function.

    Args:
        part (dict): A part of a config, with the arguments.
        kind (Callable): The class or function.
        sure (bool): Report only what is wrong even if the hint is not exact, as in many packages: something else where
            only a number can be. Defaults to False.

    Yields:
        tuple[str, str]: Name of the argument, and what is wrong.
    """
    known = arguments_of(kind)
    for name, value in part.items():
        if name == 'type' or name not in known:
            continue
        hint, default = known[name]
        if (value is None and default is None) or fits(value, hint):
            continue
        if sure and (not _is_number(hint) or isinstance(value, (Real, list | tuple))):
            continue
        yield name, f'expected {hint_text(hint)}, got {value!r}'
