"""Cuts clouds of points into groups, and makes a token of each."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import farthest_point_sample, gather_points, knn

from .serialization import PointSerialization

#: Widths of the first two shared layers, and of the layer that joins group and point.
HIDDEN_DIMS = (128, 256, 512)


def sort_points(points: Tensor) -> Tensor:
    """Sort the points (B, N, 3 + F) of each cloud by their first column, equal ones by the second, and so on.

    Sampling and search for neighbours take the lower index of equally far points. With sorted points the result does
    not depend on the order in which the points come.
    """
    *others, last = points.detach().unbind(-1)
    order = last.argsort(dim=1, stable=True)
    # A stable sort keeps the order of the sort before it among equal values.
    for column in reversed(others):
        order = order.gather(1, column.gather(1, order).argsort(dim=1, stable=True))
    return gather_points(points, order)


def group_points(
    points: Tensor, num_groups: int, group_size: int, picked_by: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cut clouds into groups of the points nearest to a centre; the centres are far from each other.

    The first centre is the first point. Groups may overlap, and some points may be in no group.

    Args:
        points (Tensor): Coordinates, then features, shape (B, N, 3 + F).
        num_groups (int): Groups G.
        group_size (int): Points M of a group, the nearest first.
        picked_by (Tensor, optional): Other coordinates to pick the centres by, shape (B, N, 3). Defaults to None.

    Returns:
        tuple[Tensor, Tensor]: The centres (B, G, 3), and the groups (B, G, M, 3 + F), coordinates relative to the
        centre.
    """
    coords = points[..., :3].contiguous()
    picks = farthest_point_sample(coords if picked_by is None else picked_by, num_groups)
    centres = gather_points(coords, picks)
    groups = gather_points(points, knn(centres, coords, group_size)[1])
    offset = F.pad(centres, (0, points.shape[-1] - 3))
    return centres, groups - offset[:, :, None]


class PointTokenizer(nn.Module):
    """Cuts clouds into groups and makes a token of each by a small PointNet, as in Point-MAE (arXiv 2203.06604).

    The PointNet (arXiv 1612.00593) has two layers on each point, the maximum over the group, two layers on each point
    together with that maximum, and the maximum again. In training, the statistics of its batch norms are those of all
    points of a batch.

    Args:
        in_channels (int): Coordinates and features (colours, normals, intensity ...) 3 + F of a point.
        embed_dim (int): Token width C.
        num_groups (int): Groups G.
        group_size (int): Points M of a group.
        serialization (str | dict, optional): The order of the groups, see :class:`PointSerialization`. Defaults to
            None, the order in which their centres are picked.

    Raises:
        ValueError: If a number is too small, or the serialization unknown.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        num_groups: int,
        group_size: int,
        serialization: str | dict | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ('num_groups', num_groups, 1),
            ('group_size', group_size, 1),
            ('in_channels', in_channels, 3),
        ):
            if not isinstance(value, int) or value < least:
                raise ValueError(f'{name}={value!r}: must be an integer of at least {least}')
        self.in_channels = in_channels
        self.num_groups = num_groups
        self.group_size = group_size
        self.serialization = None if serialization is None else PointSerialization(serialization)
        first, second, joint = HIDDEN_DIMS
        self.fc1 = nn.Linear(in_channels, first)
        self.norm1 = nn.BatchNorm1d(first)
        self.fc2 = nn.Linear(first, second)
        # One layer on [group | point], in two halves: that of the group is computed once per group.
        self.fc_group = nn.Linear(second, joint)
        self.fc_point = nn.Linear(second, joint, bias=False)
        self.norm2 = nn.BatchNorm1d(joint)
        self.fc3 = nn.Linear(joint, embed_dim)

    def _check(self, points: Tensor) -> None:
        expected = f'(B, N, {self.in_channels})'
        if not isinstance(points, Tensor):
            raise TypeError(f'inputs are a {type(points).__name__}, not a tensor {expected}: clouds of one size stack')
        if points.ndim != 3 or points.shape[2] != self.in_channels:
            raise ValueError(f'inputs of shape {tuple(points.shape)}: expected {expected}')
        for name in ('num_groups', 'group_size'):
            if points.shape[1] < getattr(self, name):
                raise ValueError(f'{name}={getattr(self, name)}: the clouds have {points.shape[1]} points only')

    def group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Cut clouds into groups in the order of the sequence.

        Args:
            points (Tensor): Coordinates, then features, shape (B, N, in_channels).

        Returns:
            tuple[Tensor, Tensor]: Centres (B, G, 3) and groups (B, G, M, in_channels), see :func:`group_points`.

        Raises:
            TypeError: If the points are not one tensor.
            ValueError: If the shape is not as above, or a cloud has too few points.
        """
        self._check(points)
        centres, groups = self._group(points)
        if self.serialization is None:
            return centres, groups
        order = self.serialization.order(centres)
        clouds = torch.arange(len(order), device=order.device)[:, None]
        return centres[clouds, order], groups[clouds, order]

    def _group(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and groups in the order in which the centres are picked."""
        return group_points(sort_points(points), self.num_groups, self.group_size)

    def forward(self, groups: Tensor) -> Tensor:
        """Tokens (B, G, C) of groups (B, G, M, 3 + F)."""
        batch, num_groups, size, _ = groups.shape
        points = groups.flatten(0, 2)
        if self.training:
            x = self.fc2(F.relu(self.norm1(self.fc1(points))))
            pooled = x.view(-1, size, x.shape[-1]).amax(dim=1)
            x = self.fc_point(x).view(len(pooled), size, -1) + self.fc_group(pooled)[:, None]
            x = F.relu(self.norm2(x.flatten(0, 1)))
        else:
            # The same with fewer passes over memory: in evaluation mode the norms are linear, and the second layer
            # and fc_point are one.
            scale, shift = _scale_and_shift(self.norm1)
            x = F.linear(points, self.fc1.weight * scale[:, None], self.fc1.bias * scale + shift).relu_()
            pooled = self.fc2(x).view(-1, size, self.fc2.out_features).amax(dim=1)
            scale, shift = _scale_and_shift(self.norm2)
            weight = self.fc_point.weight * scale[:, None]
            beside = self.fc_group(pooled) * scale + (shift + weight @ self.fc2.bias)
            x = F.linear(x, weight @ self.fc2.weight).view(len(pooled), size, -1)
            x = x.add_(beside[:, None]).relu_().flatten(0, 1)
        x = self.fc3(x)
        return x.view(batch, num_groups, size, -1).amax(dim=2)


def _scale_and_shift(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """The factor and the summand of a batch norm in evaluation mode, shape (C,)."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()  # type: ignore[operator, union-attr]
    return scale, norm.bias - norm.running_mean * scale  # type: ignore[operator]
