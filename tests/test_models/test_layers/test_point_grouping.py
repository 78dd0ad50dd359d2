"""How clouds are cut into groups, and what the embedding of groups computes."""

import torch
import torch.nn.functional as F

from mmmap.models.layers import PointTokenizer, group_points
from mmmap.models.layers.point_grouping import sort_points


def test_points_in_the_order_of_their_values():
    rows = [[0.0, 1, 4, 2], [0, 1, 5, 0], [0, 2, 0, 0], [1, -3, 0, 0], [1, -3, 0, 1], [1, -3, 0, 1]]
    points = torch.tensor([rows, rows], dtype=torch.float64)
    shuffled = torch.stack([cloud[torch.randperm(6)] for cloud in points])
    assert torch.equal(sort_points(shuffled), points)


def test_groups_are_the_points_nearest_to_the_centres():
    points = torch.rand(2, 40, 5)
    centres, groups = group_points(points, 6, 4)
    assert torch.equal(centres[:, 0], points[:, 0, :3])
    for cloud, own_centres, own_groups in zip(points, centres, groups, strict=True):
        for centre, group in zip(own_centres, own_groups, strict=True):
            nearest = cloud[(cloud[:, :3] - centre).square().sum(dim=1).argsort()[:4]]
            torch.testing.assert_close(group[:, :3], nearest[:, :3] - centre)
            assert torch.equal(group[:, 3:], nearest[:, 3:])


def test_a_token_is_that_of_a_small_pointnet():
    embedding = PointTokenizer(4, 8, num_groups=3, group_size=5)
    for norm in (embedding.norm1, embedding.norm2):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    embedding.eval()
    groups = torch.randn(2, 3, 5, 4)
    tokens = embedding(groups)
    # Point by point, with the joint layer as one.
    weight = torch.cat([embedding.fc_group.weight, embedding.fc_point.weight], dim=1)
    for cloud in range(2):
        for group in range(3):
            points = embedding.fc2(F.relu(embedding.norm1(embedding.fc1(groups[cloud, group]))))
            joint = torch.cat([points.amax(dim=0).expand_as(points), points], dim=1)
            joint = F.linear(joint, weight, embedding.fc_group.bias)
            expected = embedding.fc3(F.relu(embedding.norm2(joint))).amax(dim=0)
            torch.testing.assert_close(tokens[cloud, group], expected, rtol=1e-4, atol=1e-5)
