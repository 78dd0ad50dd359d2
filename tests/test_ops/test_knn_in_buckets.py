"""Many queries are searched in buckets of neighbours: the same bits as few queries get from a look at all points."""

import pytest
import torch
from point_cases import cloud, distances

from mmmap.ops import knn
from mmmap.ops.points import available_point_backends

REASON = available_point_backends()['native']
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
QUERIES = 150


def both_ways(query, points, k):
    """All queries at once, after a check that it makes no difference to ask for 50 at a time."""
    found = knn(query, points, k, backend='native')
    parts = zip(*(knn(part, points, k, backend='native') for part in query.split(50, dim=1)), strict=True)
    for one, other in zip(found, parts, strict=True):
        assert torch.equal(one, torch.cat(other, dim=1))
    return found


def normal(query, points):
    pass


def in_heaps(query, points):
    points[:, ::3] = points[:, :1]
    query[:, :20] = points[:, :1]


def on_a_line(query, points):
    points[..., 1:] = 0.25


def all_equal(query, points):
    points[:] = 1


def huge(query, points):
    query *= 1e17
    points *= 1e17


def far_away(query, points):
    query *= 1e3
    query += 50


def one_outlier(query, points):
    """The rest is so near to each other that an extent of the cloud cannot tell them apart."""
    points *= 1e-30
    points[:, 7] = 1e17


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('change', [normal, in_heaps, on_a_line, all_equal, huge, far_away, one_outlier])
@pytest.mark.parametrize('count', [256, 257, 700, 2111])
def test_same_as_from_all_points(count, change, dtype):
    query, points = cloud(2, QUERIES, 3, seed=1, dtype=dtype), cloud(2, count, 3, dtype=dtype)
    change(query, points)
    for k in (2, 32, 64, 100, count):
        found, indices = both_ways(query, points, k)
        assert torch.equal(found, found.sort(-1).values)
        expected = distances(query, points).gather(-1, indices)
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('count', [300, 1000])
def test_ties_over_buckets_go_to_the_lowest_index(count, dtype):
    query, points = (cloud(3, n, 3, seed=n, dtype=dtype, kind='grid') for n in (QUERIES, count))
    order = distances(query, points).sort(dim=-1, stable=True).indices
    for k in (2, 5, 33, 70, count):
        _, indices = both_ways(query, points, k)
        assert torch.equal(indices, order[..., :k])


def test_equal_points_come_by_index():
    points = torch.zeros(1, 1000, 3)
    points[0, ::7] = 1
    _, indices = both_ways(torch.zeros(1, QUERIES, 3), points, 100)
    assert (indices == torch.tensor([i for i in range(1000) if i % 7][:100])).all()


def test_transposed_clouds():
    query, points = cloud(2, 3, QUERIES, seed=1).transpose(1, 2), cloud(2, 3, 600).transpose(1, 2)
    found = knn(query, points, 9, backend='native')
    dense = knn(query.contiguous(), points.contiguous(), 9, backend='native')
    assert all(torch.equal(one, other) for one, other in zip(found, dense, strict=True))


def test_values_that_are_not_finite_are_refused():
    points = cloud(1, 600, 3)
    points[0, 400, 2] = float('inf')
    with pytest.raises(ValueError, match='points holds values that are not finite'):
        knn(cloud(1, QUERIES, 3), points, 4, backend='native')
