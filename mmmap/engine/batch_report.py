"""Names the files of a batch, and writes a batch to a file for inspection."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor

from .atomic_backend import AtomicLocalBackend

# Meta information with the file of a sample, the best first; other keys that end in '_path' come after these.
_SOURCES = ('img_path', 'lidar_path', 'filename', 'file_name')
_NUMBERS = ('sample_idx', 'img_id')


def _source(meta: Mapping[str, Any]) -> list[str]:
    """Where a sample, or the samples of a collated batch, come from."""
    for key in (*_SOURCES, *(key for key in meta if str(key).endswith('_path')), *_NUMBERS):
        value = meta.get(key)
        if isinstance(value, (str, Path)):
            return [str(value)]
        if isinstance(value, (list, tuple)) and value and all(isinstance(name, str) for name in value):
            return list(value)
        if key in _NUMBERS and isinstance(value, (int, np.integer)):
            return [f'sample {int(value)}']
    return []


def batch_files(batch: Any) -> list[str]:
    """Name the files of a batch of a data loader, in order: ``img_path``, ``lidar_path`` and so on of its samples.

    A sample without a path is named by its number, or left out if it has none.
    """
    if isinstance(batch, BaseDataElement):
        found = _source({key: batch.get(key) for key in batch.all_keys()})
        return found or [name for value in batch.all_values() for name in batch_files(value)]
    if isinstance(batch, Mapping):
        return _source(batch) or [name for value in batch.values() for name in batch_files(value)]
    if isinstance(batch, (list, tuple)):
        return [name for value in batch for name in batch_files(value)]
    return []


def non_finite_samples(batch: Any) -> list[int]:
    """The indices of the samples whose inputs are not finite, if the batch has one input per sample."""
    inputs = batch.get('inputs') if isinstance(batch, Mapping) else None
    if not isinstance(inputs, (Tensor, list, tuple)):
        return []
    return [i for i, value in enumerate(inputs) if isinstance(value, Tensor) and not bool(value.isfinite().all())]


def join_limited(names: Iterable[str], limit: int = 4) -> str:
    """Join the first names with commas, and add how many more there are."""
    names = list(names)
    more = f' and {len(names) - limit} more' if len(names) > limit else ''
    return ', '.join(names[:limit]) + more


def plain(value: Any) -> Any:
    """Turn a batch into tensors, numbers, strings, lists and dicts, which ``torch.load`` reads safely."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biuf' else plain(value.tolist())
    if isinstance(value, BaseDataElement):
        return {key: plain(item) for key, item in value.all_items()}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    # Boxes of mmdet.
    tensor = getattr(value, 'tensor', None)
    return plain(tensor) if isinstance(tensor, Tensor) else repr(value)


def dump(content: dict, path: str | Path) -> None:
    """Write tensors, data samples and so on to a local file that ``torch.load(path, weights_only=True)`` reads."""
    buffer = io.BytesIO()
    torch.save(plain(content), buffer)
    AtomicLocalBackend().put(buffer.getvalue(), path)
