"""Base of the heads of pretraining: a prediction for each scale of the target, and their weighted loss."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layers import Tokens, init_linears
from ..reconstruction_results import Reconstruction


def read_scales(scales: Sequence[Sequence], name: str, size: int) -> dict[int, float]:
    """Read the scales of a target.

    Args:
        scales (Sequence[Sequence]): A pair (factor, weight) for each scale.
        name (str): What the factors divide, for messages.
        size (int): Its value.

    Returns:
        dict[int, float]: The weight of each factor, the full resolution first.

    Raises:
        ValueError: If a scale is no such pair, a factor does not divide the size or is there twice, a weight is not
            positive, or the full resolution is missing.
    """
    weights: dict[int, float] = {}
    for scale in scales if isinstance(scales, Sequence) else [scales]:
        if not isinstance(scale, Sequence) or len(scale) != 2:
            raise ValueError(f'scales: {scale!r} is no pair (factor, weight)')
        factor, weight = scale
        if not isinstance(factor, int) or factor < 1 or size % factor:
            raise ValueError(f'scales: factor {factor!r} must be a positive integer that divides {name}={size}')
        if factor in weights:
            raise ValueError(f'scales: factor {factor} is there twice')
        if not isinstance(weight, (int, float)) or not 0 < weight < float('inf'):
            raise ValueError(f'scales: weight {weight!r} of factor {factor} must be positive')
        weights[factor] = weight
    if 1 not in weights:
        raise ValueError(f'scales={scales!r}: factor 1, the full resolution, must be one of them')
    return dict(sorted(weights.items()))


class ReconstructionHead(BaseModule):
    """A linear layer for each scale of the target: ``proj`` for the full resolution, ``coarse`` for the others.

    Args:
        in_dim (int): Width D of the decoded tokens.
        scales (dict[int, float]): The weight of each factor, see :func:`read_scales`.
        widths (Sequence[int]): Values that are predicted for a token at each of the scales.
        init_cfg (dict, optional): Initialisation config of mmengine. Defaults to None.
    """

    #: See :class:`mmmap.models.protocols.Head`.
    token_type: ClassVar[type[Tokens]]
    result_type: ClassVar[type[Reconstruction]]

    def __init__(
        self, in_dim: int, scales: dict[int, float], widths: Sequence[int], init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.scales = scales
        self.widths = tuple(widths)
        self.proj = nn.Linear(in_dim, self.widths[0])
        coarse = zip(list(scales)[1:], self.widths[1:], strict=True)
        self.coarse = nn.ModuleDict({str(factor): nn.Linear(in_dim, width) for factor, width in coarse})
        init_linears(self)

    def forward(self, decoded: Tensor) -> Tensor:
        """Predictions (B, L, P) of decoded tokens (B, L, D); those at coarser scales follow the full resolution's."""
        if not self.coarse:
            return self.proj(decoded)
        return torch.cat([self.proj(decoded), *(layer(decoded) for layer in self.coarse.values())], dim=-1)

    def full_resolution(self, pred: Tensor) -> Tensor:
        """The predictions at full resolution among those at all scales, which :meth:`forward` gives."""
        return pred[..., : self.widths[0]]

    def errors(self, pred: Tensor, targets: Tensor, factor: int) -> Tensor:
        """Error of each token, shape (B, L), in at least float32, of the predictions at the scale ``factor``."""
        raise NotImplementedError

    def losses(self, pred: Tensor, targets: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """The loss, and the mean error of each scale if there are several.

        They are ``loss`` and ``scale_FACTOR``: mmengine adds only values with 'loss' in their names. For the arguments
        see :meth:`loss`.
        """
        means = {}
        for factor, part in zip(self.scales, pred.split(self.widths, dim=-1), strict=True):
            means[factor] = (self.errors(part, targets, factor) * mask).sum() / mask.sum()
        if len(means) == 1:
            return dict(loss=means[1])
        first, *others = (weight * means[factor] for factor, weight in self.scales.items())
        total = sum(others, first) / sum(self.scales.values())
        return dict(loss=total) | {f'scale_{factor}': mean.detach() for factor, mean in means.items()}

    def loss(self, pred: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
        """Mean error over the hidden tokens of the batch, averaged over the scales by their weights.

        Args:
            pred (Tensor): Predictions at all scales, see :meth:`forward`.
            targets (Tensor): The ``targets`` of the tokens: images, or groups of points.
            mask (Tensor): True where hidden, shape (B, L).

        Returns:
            Tensor: A scalar, in at least float32.
        """
        return self.losses(pred, targets, mask)['loss']
