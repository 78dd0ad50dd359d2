import pytest
import torch
from point_parts import Groups, clouds

from mmmap.models.necks import FeaturePropagation
from mmmap.ops import three_interpolate


def taps(points, num_taps=3, width=8):
    coords = points[:, :16, :3]
    return tuple(Groups(coords, torch.randn(len(points), 16, width)) for _ in range(num_taps))


def test_every_part_counts():
    """Written out, tap by tap."""
    points, neck = clouds(channels=5), FeaturePropagation(8, 12, point_channels=5, num_categories=3)
    inputs, categories = taps(points), torch.tensor([0, 2])
    expected = neck.points(points)
    for project, (coords, features) in zip(neck.taps, inputs, strict=True):
        expected = expected + three_interpolate(points[..., :3], coords, project(features))
    last = inputs[-1].features
    expected = expected + neck.cloud(torch.cat([last.max(1)[0], last.mean(1)], 1))[:, None]
    unknown = neck.mlp(expected)
    expected = neck.mlp(expected + neck.category.weight.T[categories][:, None])
    torch.testing.assert_close(neck(inputs, points, categories), expected)
    torch.testing.assert_close(neck(inputs, points), unknown)
    assert not torch.allclose(expected, unknown, atol=1e-2)
    # The same where the taps have centres of their own, if these are equal.
    copies = tuple(Groups(coords.clone(), features) for coords, features in inputs)
    torch.testing.assert_close(neck(copies, points, categories), expected)


def test_gradients_and_independence_of_the_batch():
    points, neck = clouds(), FeaturePropagation(8, 12, num_categories=3)
    inputs, categories = taps(points), torch.tensor([0, 2])
    out = neck(inputs, points, categories)
    alone = neck(tuple(Groups(c[1:], f[1:]) for c, f in inputs), points[1:], categories[1:])
    torch.testing.assert_close(out[1:], alone)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in neck.parameters())


@pytest.mark.parametrize(
    ('changes', 'culprit'),
    [
        (dict(in_channels=0), 'in_channels=0'),
        (dict(num_taps=0), 'num_taps=0'),
        (dict(point_channels=2), 'point_channels=2'),
        (dict(num_categories=-1), 'num_categories=-1'),
    ],
)
def test_options_that_make_no_sense(changes, culprit):
    with pytest.raises(ValueError, match=culprit):
        FeaturePropagation(**(dict(in_channels=8) | changes))


def test_inputs_that_do_not_fit():
    points, neck = clouds(), FeaturePropagation(8, 12)
    with pytest.raises(ValueError, match='got features of 2 blocks, num_taps=3 expected'):
        neck(taps(points, 2), points)
    with pytest.raises(ValueError, match='the width 6, FeaturePropagation expects 8'):
        neck(taps(points, width=6), points)
    with pytest.raises(ValueError, match='4 columns, FeaturePropagation expects 3'):
        neck(taps(points), clouds(channels=4))
