"""Checks of the content of a checkpoint."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .non_finite import first_non_finite

# The log may hold the NaN of a skipped step.
_UNCHECKED = ('message_hub', 'param_schedulers', 'meta')
#: The key of `meta` that lists buffers and frozen weights that were not finite before the training began.
ON_PURPOSE = 'not_finite_on_purpose'


def check_content(checkpoint: Any, name: str) -> dict:
    """Check that a checkpoint holds finite weights, and remove the config, which mmengine would run.

    Args:
        checkpoint (Any): The content of the file.
        name (str): The file, for messages.

    Returns:
        dict: The same object.

    Raises:
        UserError: If it is no dict, its ``state_dict`` holds no tensors, or a value of a weight or of an optimizer is
            not finite. Infinities beside zeros and ones, as in masks, are allowed, and so is :data:`ON_PURPOSE`.
    """
    if not isinstance(checkpoint, dict):
        raise UserError(f'{name} is no checkpoint: it holds a {type(checkpoint).__name__}, not a dict')
    weights = checkpoint.get('state_dict', {})
    if not isinstance(weights, Mapping) or not all(isinstance(key, str) for key in weights):
        raise UserError(f'{name} is no checkpoint: its state_dict is no dict of tensors by name')
    if weights and not any(isinstance(value, Tensor) for value in weights.values()):
        raise UserError(f'{name} is no checkpoint: its state_dict holds no tensor')
    meta = checkpoint.get('meta')
    if isinstance(meta, dict):
        # Runner.resume would run it to read one number of old releases.
        meta.pop('config', None)
    on_purpose = meta.get(ON_PURPOSE) if isinstance(meta, dict) else None
    bad = _first_bad({key: value for key, value in checkpoint.items() if key not in _UNCHECKED}, on_purpose or ())
    if bad is not None:
        raise UserError(f'{name} is of no use: {bad} is not finite (NaN or infinity); take an earlier checkpoint')
    return checkpoint


def _first_bad(content: dict, on_purpose: Sequence[str]) -> str | None:
    named = dict(_tensors(content, ''))
    while (bad := first_non_finite(named)) is not None:
        name = bad.partition('.')[2].removeprefix('module.')
        if not _is_mask(named.pop(bad)) and name not in on_purpose:
            return bad
    return None


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors within dicts, lists and tuples, named by their path."""
    if hasattr(value, 'local_shards'):
        # Each process has a part of the tensor.
        value = [shard.tensor for shard in value.local_shards()]
    if isinstance(value, Tensor):
        # torch has no isfinite for numbers of one byte.
        if value.layout == torch.strided and value.dtype.itemsize > 1 and not value.is_meta:
            yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(part, f'{name}.{key}' if name else str(key))


def _is_mask(value: Tensor) -> bool:
    """Whether all finite numbers are zeros and ones, as in masks of attention."""
    finite = value[value.isfinite()]
    return not bool(value.isnan().any()) and len(finite) > 0 and bool(((finite == 0) | (finite == 1)).all())
