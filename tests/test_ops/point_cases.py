"""Point clouds and brute-force float64 answers for the tests of the point operators."""

import pytest
import torch

from mmmap.ops.points import available_point_backends

BACKENDS = [
    pytest.param(name, marks=pytest.mark.skipif(reason is not None, reason=str(reason)))
    for name, reason in available_point_backends().items()
]
# (clouds, queries, points, dims): one point, below and above a vector, a bucket and the size that is searched directly.
SHAPES = [
    (1, 1, 1, 3),
    (3, 5, 7, 3),
    (2, 33, 64, 3),
    (2, 40, 65, 2),
    (1, 70, 257, 3),
    (2, 50, 1000, 3),
    (2, 17, 300, 7),
]


def cloud(*shape, seed=0, dtype=torch.float64, kind='normal'):
    """Random points; ``'grid'`` has many equal distances and coincident points, ``'flat'`` one extent of 0."""
    generator = torch.Generator().manual_seed(seed)
    if kind == 'grid':
        return torch.randint(0, 4, shape, generator=generator).to(dtype)
    points = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    if kind == 'flat':
        points[..., -1] = 0.5
    return points


def distances(query, points):
    """Squared distances ``(B, M, N)`` in float64."""
    return (query.double()[:, :, None] - points.double()[:, None]).square().sum(-1)


def sample(points, num_samples, start=0):
    """Farthest point sampling of one cloud ``(N, D)``, by the book."""
    picks = [start]
    for _ in range(num_samples - 1):
        nearest = distances(points[None], points[picks][None])[0].min(1).values
        picks.append(int(nearest.argmax()))
    return torch.tensor(picks)
