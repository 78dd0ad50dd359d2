"""The Chamfer distance of clouds as a loss."""

import torch
from torch import Tensor

from mmmap.ops import chamfer_distance

CHAMFER_TYPES = ('l2', 'l1')
#: Squared distances below it have no gradient under 'l1', whose root has an infinite one at 0.
MIN_SQUARED = 1e-12


def chamfer_loss(pred: Tensor, target: Tensor, loss_type: str = 'l2') -> Tensor:
    """Distance of each pair of clouds, both ways.

    Args:
        pred (Tensor): Shape (B, N, D).
        target (Tensor): Shape (B, M, D).
        loss_type (str): 'l2': the mean squared distance to the nearest point of the other cloud, one way and the other
            added; 'l1': that of the distances themselves, both ways averaged (Point-MAE, arXiv 2203.06604). Defaults to
            'l2'.

    Returns:
        Tensor: Shape (B,), in at least float32.
    """
    there, back = chamfer_distance(pred, target)
    if loss_type == 'l2':
        return there.mean(dim=1) + back.mean(dim=1)
    there, back = (way.clamp(min=MIN_SQUARED).sqrt().mean(dim=1) for way in (there, back))
    return torch.stack([there, back]).mean(dim=0)
