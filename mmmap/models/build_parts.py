"""Builds the parts of a model one after the other: each takes its widths from those before it."""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import nn

from mmmap.registry import MODELS


def _shapes_taken(part: dict, foreign: Mapping[str, str]) -> Mapping[str, str]:
    """The shape that each argument of a part takes."""
    kind = part.get('type')
    if isinstance(kind, str):
        # As ``build`` looks a name up; it also says which name is unknown.
        with MODELS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if kind is None:
        return {}
    arguments = inspect.signature(kind).parameters
    return getattr(kind, 'takes', {name: shape for name, shape in foreign.items() if name in arguments})


def _same(given: Any, known: Any) -> bool:
    given, known = (tuple(value) if isinstance(value, Sequence) else value for value in (given, known))
    # A grid of one number is a square one.
    return given == known or (isinstance(known, tuple) and given == known[0] and len(set(known)) == 1)


def build_parts(
    backbone: dict | nn.Module,
    *,
    foreign: Mapping[str, str] = MappingProxyType({}),
    **parts: dict | nn.Module | None,
) -> list[Any]:
    """Build a backbone and, in the order given, the parts behind it.

    The ``shapes`` of a part, see :class:`~mmmap.models.protocols.Part`, are the defaults of the arguments that parts
    behind it name in ``takes``. A config may give such an argument only the same value.

    Args:
        backbone (dict | nn.Module): The backbone or its config.
        foreign (Mapping[str, str]): ``takes`` of the parts that have none, those of other libraries. Only the arguments
            that a part has count. Defaults to nothing.
        **parts (dict | nn.Module | None): The parts or their configs by their names in the model.

    Returns:
        list[Any]: The backbone and the parts, None for those that are None.

    Raises:
        ValueError: If an argument differs from what the parts before give; the message names both.
    """
    known: dict[str, tuple[Any, str]] = {}
    built = []
    for name, part in dict(backbone=backbone, **parts).items():
        if part is not None and not isinstance(part, nn.Module):
            part = dict(part)
            for argument, shape in _shapes_taken(part, foreign).items():
                if shape not in known:
                    continue
                value, owner = known[shape]
                if not _same(part.setdefault(argument, value), value):
                    raise ValueError(
                        f'{name}.{argument}={part[argument]!r}, but {owner} has {shape}={value!r}: leave '
                        f'{name}.{argument} out'
                    )
            part = MODELS.build(part)
        known |= {shape: (value, name) for shape, value in getattr(part, 'shapes', {}).items()}
        built.append(part)
    return built
