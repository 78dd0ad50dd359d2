"""What the point operators refuse, in one line that names the culprit."""

import pytest
import torch

from mmmap.ops import ball_query, chamfer_distance, farthest_point_sample, gather_points, knn, three_interpolate

P, Q = torch.rand(2, 10, 3), torch.rand(2, 4, 3)
BAD = P.clone()
BAD[1, 2, 0] = float('nan')
F = torch.rand(2, 10, 5)
I = torch.zeros(2, 4, dtype=torch.int64)  # noqa: E741


@pytest.mark.parametrize(
    ('call', 'kind', 'message'),
    [
        (lambda: farthest_point_sample(P, 11), ValueError, 'num_samples must be from 1 to the number of points 10'),
        (lambda: farthest_point_sample(P, 0), ValueError, 'num_samples must be from 1'),
        (lambda: farthest_point_sample(P, 2.0), TypeError, 'num_samples must be an int, got float'),
        (lambda: farthest_point_sample(P.long(), 2), TypeError, 'points must be float32'),
        (lambda: farthest_point_sample(P[0], 2), ValueError, r'points must be \(batch, points, dims\)'),
        (lambda: farthest_point_sample(P, 2, 10), ValueError, 'start must be from 0 to 9, got 10'),
        (lambda: farthest_point_sample(P, 2, torch.tensor([0, -1])), ValueError, 'start must be from 0 to 9'),
        (lambda: farthest_point_sample(P, 2, torch.zeros(3, dtype=torch.int64)), ValueError, 'start must be'),
        (lambda: farthest_point_sample(P, 2, torch.zeros(2)), TypeError, 'start must be an int'),
        (lambda: farthest_point_sample(P, 2, 0.5), TypeError, 'start must be an int'),
        (lambda: farthest_point_sample(BAD, 2), ValueError, 'points holds values that are not finite'),
        (lambda: farthest_point_sample(P * 1e19, 2), ValueError, 'points holds values too large to be squared'),
        (lambda: farthest_point_sample(P, 2, backend='cuda'), ValueError, "be one of auto, native, torch, got 'cuda'"),
        (lambda: knn(Q, P, 11), ValueError, 'knn: k must be from 1 to the number of points 10, got 11'),
        (lambda: knn(Q, P, True), TypeError, 'k must be an int'),
        (lambda: knn(Q[:1], P, 2), ValueError, 'query has 1 clouds, but points has 2'),
        (lambda: knn(Q[..., :2], P, 2), ValueError, 'query has 2 dims, but points has 3'),
        (lambda: knn(Q, P.to('meta'), 2), ValueError, 'query is on cpu, but points is on meta'),
        (lambda: knn(Q, BAD, 2), ValueError, 'knn: points holds'),
        (lambda: knn(BAD, Q, 2), ValueError, 'knn: query holds'),
        (lambda: knn(Q, P, 2, backend='triton'), ValueError, "knn: backend must be .* native, torch, got 'triton'"),
        (lambda: ball_query(Q, P, -1.0, 2), ValueError, 'radius must be finite and not below 0, got -1.0'),
        (lambda: ball_query(Q, P, float('nan'), 2), ValueError, 'radius must be finite'),
        (lambda: ball_query(Q, P, 0.1, 11), ValueError, 'ball_query: k must be'),
        (lambda: gather_points(F, I.int()), TypeError, 'indices must be int64, got torch.int32'),
        (lambda: gather_points(F, I[:1]), ValueError, r'indices must be \(batch=2, ...\)'),
        (lambda: gather_points(F[0], I), ValueError, 'features must be'),
        (lambda: three_interpolate(Q, P, F[:, :9]), ValueError, r'features must be \(batch=2, points=10, channels\)'),
        (lambda: three_interpolate(Q, P, F.long()), TypeError, 'features must be float32'),
        (lambda: three_interpolate(Q, P, F, k=0), ValueError, 'k must be an int of at least 1, got 0'),
        (lambda: chamfer_distance(P, Q[:, :0]), ValueError, r'b must be \(batch, points, dims\), none of them 0'),
        (lambda: chamfer_distance(P, None), TypeError, 'b must be a tensor, got NoneType'),
    ],
)  # fmt: skip
def test_one_line_that_names_the_culprit(call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call()
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('index', [-1, 10])
@pytest.mark.parametrize('features', [F, F.long()], ids=['float', 'int'])
def test_index_out_of_range(features, index):
    with pytest.raises((IndexError, RuntimeError), match=r'(?i)out of (range|bounds)'):
        gather_points(features, I + index)


def test_second_derivatives_are_refused():
    a = P.clone().requires_grad_()
    (grad,) = torch.autograd.grad(chamfer_distance(a, Q)[0].sum(), a, create_graph=True)
    with pytest.raises(RuntimeError, match='no derivative'):
        grad.sum().backward()
