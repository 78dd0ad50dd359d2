"""What a checkpoint must hold, and must not, whichever way it was loaded."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import UserError
from .finite import first_non_finite

# Statistics of the log, where a skipped step may have left a NaN, and what schedulers count.
_UNCHECKED = ('message_hub', 'param_schedulers', 'meta')
#: Where `meta` lists the buffers and frozen weights that were not finite before the training began.
ON_PURPOSE = 'not_finite_on_purpose'


def check_content(checkpoint: Any, name: str) -> dict:
    """Refuse what is no checkpoint or would ruin a model, and take out what mmengine would run.

    Args:
        checkpoint (Any): What the file holds.
        name (str): The file, for messages.

    Returns:
        dict: The same object.

    Raises:
        UserError: If it is no dict, its ``state_dict`` is none of tensors, or a value of a weight or of an optimizer is
            not finite. An infinity is allowed in a mask, which has no other values than 0 and 1, and anything in what
            the run had that way from its start (:data:`ON_PURPOSE`).
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
        # Text of Python, which Runner.resume would run to read one number of old releases.
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
        # A tensor of which each process has a part.
        value = [shard.tensor for shard in value.local_shards()]
    if isinstance(value, Tensor):
        # Numbers of one byte have no isfinite; tensors on the meta device have no numbers.
        if value.layout == torch.strided and value.dtype.itemsize > 1 and not value.is_meta:
            yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        for key, part in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _tensors(part, f'{name}.{key}' if name else str(key))


def _is_mask(value: Tensor) -> bool:
    """Tell whether the numbers beside infinities are zeros and ones alone, as in masks of attention."""
    finite = value[value.isfinite()]
    return not bool(value.isnan().any()) and len(finite) > 0 and bool(((finite == 0) | (finite == 1)).all())
