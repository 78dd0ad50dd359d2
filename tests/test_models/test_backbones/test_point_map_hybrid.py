"""The backbone for clouds of points: what it gives, what it does not depend on, and what it refuses."""

import pytest
import torch
from mmpretrain.registry import MODELS as PRETRAIN_MODELS

from mmmap.models.backbones import PointMAPHybrid
from mmmap.models.layers import CloudTokens
from mmmap.registry import MODELS

ARCH = dict(embed_dim=32, layout='MMMT', num_heads=4, d_state=4)


def build(**changes) -> PointMAPHybrid:
    return PointMAPHybrid(**(dict(arch=ARCH, num_groups=16, group_size=8) | changes)).eval()


def test_shapes_of_every_kind_of_output():
    points = torch.rand(2, 60, 3)
    for out_type, shape in (('max_mean', (2, 64)), ('cls_max_mean', (2, 64)), ('raw', (2, 16, 32))):
        outs = build(out_type=out_type, out_indices=(1, -1))(points)
        assert [out.shape for out in outs] == [shape, shape]
        assert not torch.equal(*outs)
    outs = build(out_type='points', out_indices=(1, -1))(points)
    assert [(out.coords.shape, out.features.shape) for out in outs] == [((2, 16, 3), (2, 16, 32))] * 2


def test_features_beside_coordinates_count():
    model = build(in_channels=5)
    points = torch.rand(2, 60, 5)
    other = torch.cat([points[..., :3], points[..., 3:] + 1], dim=-1)
    assert torch.equal(model.tokenize(points).coords, model.tokenize(other).coords)
    assert not torch.allclose(model(points)[0], model(other)[0])


def lattice(features: int = 0) -> torch.Tensor:
    """Clouds whose points are equally far from many others: a grid, one of a plane, and one with points twice."""
    axis = torch.linspace(-1, 1, 4)
    cube = torch.cartesian_prod(axis, axis, axis)
    plane = cube * torch.tensor([1.0, 1.0, 0.0])
    twice = torch.cat([cube[::2], cube[::2]])
    clouds = torch.stack([cube, plane, twice])
    return torch.cat([clouds, torch.arange(features * 64).view(64, features).expand(3, -1, -1) / 64], dim=-1)


@pytest.mark.parametrize('serialization', ['hilbert', 'raster', dict(type='axis', axis=0)])
@pytest.mark.parametrize('features', [0, 2])
def test_the_order_of_equally_far_points_does_not_matter(serialization, features):
    model = build(in_channels=3 + features, serialization=serialization)
    points = lattice(features)
    expected = model(points)[0]
    for seed in range(5):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(seed))
        assert (model(points[:, order])[0] - expected).abs().max() < 1e-5


def test_parts_and_scenes_do_not_depend_on_the_order_of_their_points():
    model = MODELS.build(
        dict(
            type='PointSegmentor',
            backbone=dict(
                type='PointMAPHybrid', arch=ARCH, num_groups=16, group_size=8, out_type='points', out_indices=(1, 3)
            ),
            neck=dict(type='FeaturePropagation', in_channels=32, out_channels=16, num_taps=2),
            head=dict(type='PointSegHead', in_channels=16, num_classes=4),
        )
    ).eval()
    points, order = lattice(), torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert (model(points[:, order]) - model(points)[:, order]).abs().max() < 1e-5


@pytest.mark.parametrize('out_type', ['max_mean', 'cls_max_mean'])
def test_neither_the_order_of_the_points_nor_other_clouds_matter(out_type):
    backbone = dict(type='PointMAPHybrid', arch=ARCH, num_groups=16, group_size=8, out_type=out_type)
    head = dict(
        type='StackedLinearClsHead', num_classes=5, in_channels=64, mid_channels=[16], norm_cfg=dict(type='BN1d')
    )
    model = PRETRAIN_MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).eval()
    points = torch.rand(3, 60, 3)
    logits = model(points)
    assert logits.shape == (3, 5)
    shuffled = torch.stack([cloud[torch.randperm(60)] for cloud in points])
    assert (model(shuffled) - logits).abs().max() < 1e-5
    for i in range(3):
        assert (model(points[i : i + 1]) - logits[i]).abs().max() < 1e-5


def test_tokens_follow_the_serialization_in_runs_of_regions():
    model = build(serialization=dict(type='axis', axis=2), region_size=8)
    tokens = model.tokenize(torch.rand(2, 60, 3))
    assert tokens.order is None
    assert isinstance(tokens, CloudTokens)
    assert tokens.region_ids.tolist() == [0] * 8 + [1] * 8
    heights = tokens.coords[..., 2]
    # Within a cell the order is that of the sampling.
    assert (heights.diff(dim=1) > -heights.amax() / 1000).all()
    # A group belongs to its centre: the nearest point is the centre itself.
    assert tokens.groups[:, :, 0].abs().max() == 0


@pytest.mark.parametrize(('groups', 'size'), [(64, 8), (16, 4), (128, 8), (25, 5), (7, 1)])
def test_default_size_of_regions(groups, size):
    assert build(num_groups=groups).region_size == size


def test_layer_depths_and_frozen_stages():
    model = build(out_type='cls_max_mean', frozen_stages=2)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert {total for _, total in depths.values()} == {6}
    for name, (depth, _) in depths.items():
        first = name.split('.')[0]
        expected = 5 if name.startswith('encoder.norm') else int(name.split('.')[2]) + 1 if first == 'encoder' else 0
        assert depth == expected
    model.train()
    assert not model.tokenizer.training
    trained = {depths[name][0] for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {3, 4, 5}


WRONG = [
    dict(out_type='featmap'),
    dict(num_groups=0),
    dict(group_size=2.5),
    dict(in_channels=2),
    dict(region_size=5),
    dict(serialization='row'),
    dict(arch='huge'),
    dict(out_indices=4),
    dict(frozen_stages=5),
    dict(arch=ARCH | dict(num_registers=3)),
]


@pytest.mark.parametrize('changes', WRONG, ids=str)
def test_wrong_arguments_are_named(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        build(**changes)


@pytest.mark.parametrize('shape', [(2, 60, 4), (60, 3)])
def test_wrong_shapes_are_named(shape):
    with pytest.raises(ValueError, match=r'expected \(B, N, 3\)'):
        build()(torch.rand(shape))


def test_too_few_points_are_named():
    with pytest.raises(ValueError, match='num_groups=16: the clouds have 12 points only'):
        build()(torch.rand(2, 12, 3))
    with pytest.raises(TypeError, match='inputs are a list'):
        build()([torch.rand(60, 3)])
