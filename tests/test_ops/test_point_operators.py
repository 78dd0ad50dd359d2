"""The point operators against brute force in float64 and against scipy's KD-tree."""

import pytest
import torch
from point_cases import BACKENDS, SHAPES, cloud, distances, sample
from scipy.spatial import cKDTree

from mmmap.ops import (
    ball_query,
    chamfer_distance,
    farthest_point_sample,
    gather_points,
    knn,
    three_interpolate,
)

KINDS = ['normal', 'grid', 'flat']
pytestmark = pytest.mark.parametrize('backend', BACKENDS)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_farthest_point_sample(shape, kind, backend):
    batch, _, count, dims = shape
    points = cloud(batch, count, dims, kind=kind)
    samples = min(count, 60)
    found = farthest_point_sample(points, samples, backend=backend)
    assert found.dtype == torch.int64 and found.shape == (batch, samples)
    for one, picks in zip(points, found, strict=True):
        assert picks.tolist() == sample(one, samples).tolist()


def test_farthest_point_sample_of_all_points_is_a_permutation(backend):
    points = cloud(2, 500, 3)
    found = farthest_point_sample(points, 500, backend=backend)
    assert (found.sort(-1).values == torch.arange(500)).all()


def test_farthest_point_sample_of_equal_points(backend):
    points = torch.ones(1, 200, 3)
    assert farthest_point_sample(points, 4, start=150, backend=backend).tolist() == [[150, 0, 0, 0]]


def test_farthest_point_sample_from_given_starts(backend):
    points = cloud(3, 100, 3)
    start = torch.tensor([5, 99, 0], dtype=torch.int32)
    found = farthest_point_sample(points, 10, start, backend=backend)
    for one, first, picks in zip(points, start.tolist(), found, strict=True):
        assert picks.tolist() == sample(one, 10, first).tolist()
    assert farthest_point_sample(points, 1, 7, backend=backend).tolist() == [[7]] * 3


def test_farthest_point_sample_follows_a_permutation(backend):
    points = cloud(1, 2000, 3, dtype=torch.float32)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    start = int((order == 0).nonzero())
    picks = farthest_point_sample(points, 300, backend=backend)
    moved = farthest_point_sample(points[:, order], 300, start, backend=backend)
    assert (order[moved] == picks).all()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('k', [1, 3, 40, None])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_knn(shape, k, kind, backend):
    batch, queries, count, dims = shape
    query, points = cloud(batch, queries, dims, seed=1, kind=kind), cloud(batch, count, dims, kind=kind)
    k = min(k or count, count)
    found, indices = knn(query, points, k, backend=backend)
    expected, order = distances(query, points).sort(dim=-1, stable=True)
    torch.testing.assert_close(found, expected[..., :k])
    assert indices.dtype == torch.int64
    if kind == 'grid':  # exact, so that ties are ties
        assert (indices == order[..., :k]).all()
    else:
        torch.testing.assert_close(distances(query, points).gather(-1, indices), expected[..., :k])
        assert all(len(set(row)) == k for row in indices.flatten(0, 1).tolist())


def test_knn_against_a_tree(backend):
    query, points = cloud(2, 300, 3, seed=1), cloud(2, 5000, 3)
    found, indices = knn(query, points, 16, backend=backend)
    for b in range(2):
        expected, order = cKDTree(points[b]).query(query[b], 16)
        torch.testing.assert_close(found[b].sqrt(), torch.from_numpy(expected))
        assert (indices[b] == torch.from_numpy(order)).all()


def test_knn_of_coincident_points_fills_up_by_index(backend):
    points = torch.zeros(1, 700, 3)
    points[0, ::7] = 1
    _, indices = knn(torch.zeros(1, 2, 3), points, 100, backend=backend)
    expected = [i for i in range(700) if i % 7][:100]
    assert indices.tolist() == [[expected, expected]]


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('radius', [0.0, 0.3, 1.0, 50.0])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_ball_query(shape, radius, kind, backend):
    batch, queries, count, dims = shape
    query, points = cloud(batch, queries, dims, seed=1, kind=kind), cloud(batch, count, dims, kind=kind)
    query[:, 0] = points[:, 0]
    k = min(20, count)
    found = ball_query(query, points, radius, k, backend=backend)
    assert found.shape == (batch, queries, k) and found.dtype == torch.int64
    table = distances(query, points)
    for row, picks in zip(table.flatten(0, 1), found.flatten(0, 1).tolist(), strict=True):
        within = (row <= radius**2).nonzero()[:, 0].tolist()[:k] or [int(row.argmin())]
        assert picks == within + within[:1] * (k - len(within))


def test_gather_points(backend):
    features = cloud(2, 9, 5)
    indices = torch.tensor([[[0, 3], [3, 8]], [[1, 1], [1, 2]]])
    found = gather_points(features, indices)
    assert found.shape == (2, 2, 2, 5)
    assert all((found[b, i, j] == features[b, indices[b, i, j]]).all() for b in (0, 1) for i in (0, 1) for j in (0, 1))
    labels = torch.arange(18).view(2, 9, 1)
    assert gather_points(labels, indices[:, :, 0])[..., 0].tolist() == [[0, 3], [10, 10]]
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: gather_points(x, indices), leaf)


@pytest.mark.parametrize('k', [1, 3, 20])
def test_three_interpolate(k, backend):
    query, points, features = cloud(2, 11, 3, seed=1), cloud(2, 13, 3), cloud(2, 13, 6, seed=2)
    query[0, 0] = points[0, 4]
    found = three_interpolate(query, points, features, k, backend=backend)
    near, order = distances(query, points).sort(-1)
    weights = 1 / near[..., :k].clamp(min=1e-30)
    weights = torch.zeros(2, 11, 13, dtype=torch.float64).scatter_(-1, order[..., :k], weights)
    expected = weights / weights.sum(-1, keepdim=True) @ features
    torch.testing.assert_close(found, expected)
    assert (found[0, 0] == features[0, 4]).all()
    leaf = features.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: three_interpolate(query, points, x, k, backend=backend), leaf)


def test_three_interpolate_at_coincident_points_is_their_mean(backend):
    points, features = torch.zeros(1, 3, 3), torch.tensor([[[1.0], [2.0], [6.0]]])
    points[0, 2] = 1
    assert three_interpolate(torch.zeros(1, 1, 3), points, features, backend=backend).item() == 1.5


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', [*SHAPES, (40, 32, 32, 3)], ids=str)
def test_chamfer_distance(shape, kind, backend):
    batch, queries, count, dims = shape
    a, b = (cloud(batch, n, dims, seed=seed, kind=kind).requires_grad_() for seed, n in enumerate((queries, count)))
    found = chamfer_distance(a, b, backend=backend)
    table = distances(a, b)
    expected = table.min(2).values, table.min(1).values
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    weights = [torch.linspace(0.5, 2, x.numel(), dtype=x.dtype).view_as(x) for x in found]
    grads, others = (torch.autograd.grad(results, (a, b), weights) for results in (found, expected))
    for one, other in zip(grads, others, strict=True):
        torch.testing.assert_close(one, other)


def test_chamfer_distance_gradcheck(backend):
    a, b = cloud(2, 6, 3).requires_grad_(), cloud(2, 9, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: chamfer_distance(a, b, backend=backend), (a, b))
    # One of the two alone.
    assert torch.autograd.gradcheck(lambda b: chamfer_distance(a.detach(), b, backend=backend)[0], b)


def test_chamfer_distance_of_equal_clouds_has_no_gradient(backend):
    a = cloud(1, 300, 3).requires_grad_()
    total = sum(x.sum() for x in chamfer_distance(a, a.detach().clone(), backend=backend))
    total.backward()
    assert total.item() == 0 and (a.grad == 0).all()


def test_chamfer_distance_lets_nan_through(backend):
    a, b = cloud(2, 40, 3), cloud(2, 30, 3, seed=1)
    a[0, 3, 1] = float('nan')
    dist_a, dist_b = chamfer_distance(a, b, backend=backend)
    assert dist_a[0, 3].isnan() and dist_a[1].isfinite().all() and dist_b[1].isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_short_types(dtype, backend):
    query, points = cloud(2, 50, 3, seed=1).to(dtype), cloud(2, 700, 3).to(dtype)
    features = cloud(2, 700, 8).to(dtype).requires_grad_()
    expected = distances(query, points)
    found, indices = knn(query, points, 9, backend=backend)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.sort(-1).values[..., :9], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(expected.gather(-1, indices), found.double(), rtol=1e-5, atol=1e-6)
    out = three_interpolate(query, points, features, backend=backend)
    out.sum().backward()
    assert out.dtype == features.grad.dtype == dtype
    exact = three_interpolate(query.double(), points.double(), features.double(), backend=backend)
    torch.testing.assert_close(out.double(), exact, rtol=1e-2, atol=1e-2)
    gathered = gather_points(features, indices)
    assert gathered.dtype == dtype and (gathered[1, 2, 3] == features[1, indices[1, 2, 3]]).all()
    dist_a, dist_b = chamfer_distance(query.requires_grad_(), points, backend=backend)
    assert dist_a.dtype == dist_b.dtype == torch.float32
    torch.testing.assert_close(dist_a.double(), expected.min(2).values, rtol=1e-5, atol=1e-6)
    (dist_a.sum() + dist_b.sum()).backward()
    assert query.grad.dtype == dtype and query.grad.isfinite().all()
    picks = farthest_point_sample(points, 40, backend=backend)
    # Each pick is as far from those before it as any point can be.
    for b in range(2):
        table = distances(points, points)[b][:, picks[b]]
        for i in range(1, 40):
            reach = table[:, :i].min(1).values
            torch.testing.assert_close(reach[picks[b, i]], reach.max(), rtol=1e-5, atol=1e-6)


def test_strides_do_not_matter(backend):
    wide = cloud(3, 4, 400, dtype=torch.float32)
    points, query = wide.transpose(1, 2)[..., 1:], wide.transpose(1, 2)[:, ::3, :3]
    dense, plain = points.contiguous(), query.contiguous()
    assert not points.is_contiguous() and not query.is_contiguous()
    pairs = [
        (farthest_point_sample(x, 30, backend=backend), knn(q, x, 5, backend=backend)[1],
         ball_query(q, x, 0.5, 6, backend=backend), chamfer_distance(q, x, backend=backend)[1],
         three_interpolate(q, x, f, backend=backend), gather_points(f, i))
        for q, x, f, i in (
            (query, points, wide.transpose(1, 2), torch.arange(60).view(20, 3).T),
            (plain, dense, wide.transpose(1, 2).contiguous(), torch.arange(60).view(20, 3).T.contiguous()),
        )
    ]  # fmt: skip
    assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))


def test_under_the_compiler(backend):
    def everything(a, b):
        picks = farthest_point_sample(a, 8, backend=backend)
        centres = gather_points(a, picks)
        _, near = knn(centres, a, 4, backend=backend)
        groups = gather_points(a, near) - centres[:, :, None]
        up = three_interpolate(a, centres, groups.mean(2), backend=backend)
        return sum(x.sum() for x in chamfer_distance(up, b, backend=backend))

    a, b = cloud(2, 90, 3).requires_grad_(), cloud(2, 70, 3, seed=1)
    compiled = torch.compile(everything, backend='aot_eager', fullgraph=True)
    found, expected = (torch.autograd.grad(f(a, b), a)[0] for f in (compiled, everything))
    torch.testing.assert_close(found, expected)


def test_operators_are_sound(backend):
    a, b = cloud(2, 12, 3).requires_grad_(), cloud(2, 15, 3, seed=1).requires_grad_()
    start, indices = torch.zeros(2, dtype=torch.int64), torch.randint(0, 12, (2, 5, 3))
    weights = torch.rand(2, 5, 3, dtype=torch.float64)
    ops = torch.ops.mmmap
    for operator, arguments in (
        (ops.farthest_point_sample, (a.detach(), 4, start, backend)),
        (ops.knn, (a.detach(), b.detach(), 4, backend)),
        (ops.ball_query, (a.detach(), b.detach(), 0.5, 4, backend)),
        (ops.interpolate, (a, indices, weights)),
        (ops.chamfer, (a, b, backend)),
    ):
        torch.library.opcheck(operator.default, arguments)
