"""The feature maps that the heads of a detector or segmentor get, from a copy of it without weights."""

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

# A multiple of this many pixels: the strides of all usual heads divide it, so that no rounding hides a difference.
SIDE = 512


@dataclass(frozen=True)
class FeatureMaps:
    """The maps of a square picture of ``side`` pixels: their ``sides`` (rows, columns) and ``channels``, in order.

    ``patch`` and ``width`` are the stride and the channels of the maps of a plain backbone, which has one size of them,
    else 0.
    """

    side: int
    sides: tuple[tuple[int, int], ...]
    channels: tuple[int, ...]
    patch: int = 0
    width: int = 0

    @property
    def strides(self) -> list[int | float]:
        """Pixels of a picture between the cells of each map."""
        strides = [self.side / rows for rows, _ in self.sides]
        return [int(stride) if stride == int(stride) else round(stride, 2) for stride in strides]

    def fit(self, strides: Sequence[tuple[float, float]]) -> bool:
        """Whether the cells of the first maps are these strides (rows, columns) apart.

        The last cell of a row or column may be cut off or filled up.
        """
        return all(
            math.floor(self.side / step + 1e-6) <= cells <= math.ceil(self.side / step - 1e-6)
            for sides, steps in zip(self.sides, strides, strict=False)
            for cells, step in zip(sides, steps, strict=True)
        )


def _copy_without_weights(model: nn.Module) -> nn.Module:
    """A copy of a model on the meta device: no memory, no arithmetic, and the shapes of all that it computes."""
    memo: dict[int, object] = {}
    for module in model.modules():
        for group in (vars(module), module._parameters, module._buffers):
            for value in group.values():
                if isinstance(value, nn.Parameter):
                    memo[id(value)] = nn.Parameter(value.detach().to('meta'), requires_grad=False)
                elif isinstance(value, Tensor):
                    memo[id(value)] = value.detach().to('meta')
    return copy.deepcopy(model, memo)


def _maps_of(outputs: object) -> list[Tensor] | None:
    if isinstance(outputs, Sequence) and all(isinstance(x, Tensor) and x.ndim == 4 for x in outputs):
        return list(outputs)
    return None


def _run(model: Any, side: int, device: torch.device) -> FeatureMaps | None:
    taken: list[Tensor] = []

    def remember(module: nn.Module, inputs: object, outputs: object) -> None:
        taken.extend(_maps_of(outputs) or ())

    mean = getattr(model.data_preprocessor, 'mean', None)
    picture = torch.zeros(1, 3 if mean is None else len(mean), side, side, device=device)
    model.backbone.register_forward_hook(remember)
    with torch.no_grad():
        maps = _maps_of(model.eval().extract_feat(picture))
    if not maps:
        return None
    plain = len({x.shape[1:] for x in taken}) == 1 and side % taken[0].shape[-1] == 0
    return FeatureMaps(
        side=side,
        sides=tuple((x.shape[2], x.shape[3]) for x in maps),
        channels=tuple(x.shape[1] for x in maps),
        patch=side // taken[0].shape[-1] if plain else 0,
        width=taken[0].shape[1] if plain else 0,
    )


def feature_maps(model: nn.Module, side: int | None = None) -> FeatureMaps | None:
    """The maps that a detector or segmentor gives to its heads.

    The model computes on the meta device, or, where an operator of it has no rule for that, as a second copy on its own
    device. The model itself is not called.

    Args:
        model (nn.Module): A detector of mmdet or a segmentor of mmseg, without wrappers.
        side (int, optional): Side of the picture in pixels, rounded up to whole patches. Defaults to None: 512 or
            more.

    Returns:
        FeatureMaps | None: The maps, or None if this model has none that can be told, such as one that needs text.
    """
    if not hasattr(model, 'extract_feat') or not hasattr(model, 'backbone'):
        return None
    patch = getattr(model.backbone, 'patch_size', 1)
    patch = patch if isinstance(patch, int) and patch > 0 else 1
    step = patch if side else math.lcm(patch, 128)
    side = step * math.ceil((side or SIDE) / step)
    reasons = []
    for duplicate in (_copy_without_weights, copy.deepcopy):
        try:
            trial = duplicate(model)
            return _run(trial, side, next(trial.parameters()).device)
        except Exception as error:
            # What keeps a model from running is told by the first iteration, with its place.
            reasons.append(f'{type(error).__name__}: {error}')
    print_log('the maps of the heads are not checked: ' + '; '.join(reasons), 'current', logging.DEBUG)
    return None
