"""Clouds of points as groups around centres, and the tokens of these groups."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import farthest_point_sample, gather_points, knn

#: Widths of the shared layers: of the first two, and of what group and point are joined in.
HIDDEN_DIMS = (128, 256, 512)


def smallest_point(coords: Tensor) -> Tensor:
    """Index of the point of each cloud that is first by its first coordinate, then its second and so on.

    A start for sampling that does not depend on the order of the points.

    Args:
        coords (Tensor): Shape (B, N, D).

    Returns:
        Tensor: Shape (B,), int64; of equal points the lowest index.
    """
    left = torch.ones_like(coords[..., 0], dtype=torch.bool)
    for axis in coords.unbind(-1):
        values = axis.masked_fill(~left, torch.inf)
        left = left & (values == values.amin(dim=1, keepdim=True))
    return left.to(torch.uint8).argmax(dim=1)


def group_points(
    points: Tensor, num_groups: int, group_size: int, start: int | Tensor = 0, skip_origin: bool = False
) -> tuple[Tensor, Tensor]:
    """Cut clouds into groups of the points nearest to centres, which are picked farthest from each other.

    Groups overlap, or leave points out.

    Args:
        points (Tensor): Coordinates, then features, shape (B, N, 3 + F).
        num_groups (int): Groups G.
        group_size (int): Points M of a group, the nearest first.
        start (int | Tensor): Index of the first centre, for all clouds or (B,). Defaults to 0.
        skip_origin (bool): Never pick centres at the origin, see :func:`mmmap.ops.farthest_point_sample`. Defaults to
            False.

    Returns:
        tuple[Tensor, Tensor]: The centres (B, G, 3), and the groups (B, G, M, 3 + F), coordinates relative to the
        centre.
    """
    coords = points[..., :3].contiguous()
    centres = gather_points(coords, farthest_point_sample(coords, num_groups, start, skip_origin))
    groups = gather_points(points, knn(centres, coords, group_size)[1])
    offset = F.pad(centres, (0, points.shape[-1] - 3))
    return centres, groups - offset[:, :, None]


class GroupEmbedding(nn.Module):
    """A token for each group by a small PointNet (arXiv 1612.00593), as in Point-MAE (arXiv 2203.06604).

    Two layers on each point, the maximum over the group, two layers on each point beside that maximum, and the maximum
    again. In training, batch norms share their statistics among the points of a batch.

    Args:
        in_channels (int): Coordinates and features 3 + F of a point.
        embed_dim (int): Token width C.
    """

    def __init__(self, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        first, second, joint = HIDDEN_DIMS
        self.fc1 = nn.Linear(in_channels, first)
        self.norm1 = nn.BatchNorm1d(first)
        self.fc2 = nn.Linear(first, second)
        # One layer on [group | point]; its half of the group is computed once a group.
        self.fc_group = nn.Linear(second, joint)
        self.fc_point = nn.Linear(second, joint, bias=False)
        self.norm2 = nn.BatchNorm1d(joint)
        self.fc3 = nn.Linear(joint, embed_dim)

    def forward(self, groups: Tensor) -> Tensor:
        """Tokens (B, G, C) of groups (B, G, M, 3 + F)."""
        batch, num_groups, size, _ = groups.shape
        x = self.fc2(F.relu(self.norm1(self.fc1(groups.flatten(0, 2)))))
        pooled = x.view(-1, size, x.shape[-1]).amax(dim=1)
        x = self.fc_point(x).view(len(pooled), size, -1) + self.fc_group(pooled)[:, None]
        x = self.fc3(F.relu(self.norm2(x.flatten(0, 1))))
        return x.view(batch, num_groups, size, -1).amax(dim=2)
