"""A search for NaN and infinity in tensors."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


def first_non_finite(tensors: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str | None:
    """The name of the first floating-point tensor that holds a NaN or an infinity, None if all numbers are finite.

    Args:
        tensors (Mapping[str, Any] | Iterable[tuple[str, Any]]): Tensors by name. Other values are ignored.
    """
    pairs = tensors.items() if isinstance(tensors, Mapping) else tensors
    named = [(name, value) for name, value in pairs if isinstance(value, Tensor) and value.is_floating_point()]
    # The answers are read together, so that the host waits once for each device.
    answers = [torch.isfinite(value.detach()).all() for _, value in named]
    by_device: dict[torch.device, list[int]] = {}
    for index, answer in enumerate(answers):
        by_device.setdefault(answer.device, []).append(index)
    bad = []
    for indices in by_device.values():
        finite = torch.stack([answers[index] for index in indices]).tolist()
        bad += [index for index, good in zip(indices, finite, strict=True) if not good]
    return named[min(bad)][0] if bad else None
