"""Targets at several scales: what they are, their weighted loss, and what of it is logged and drawn."""

import pytest
import torch

from mmmap.models.heads import PixelReconstructionHead, PointReconstructionHead
from mmmap.registry import MODELS

SCALES = ((2, 0.5), (1, 1.0), (4, 2.0))
MASK = torch.tensor([[True, False, True, False], [False, False, True, True]])


def pixels(**options) -> PixelReconstructionHead:
    return PixelReconstructionHead(**(dict(in_dim=6, patch_size=4, scales=SCALES) | options))


def points(**options) -> PointReconstructionHead:
    return PointReconstructionHead(**(dict(in_dim=6, group_size=8, scales=SCALES) | options))


def test_the_default_is_the_one_layer_of_the_released_model():
    for head, width in ((PixelReconstructionHead(in_dim=6, patch_size=4), 48), (PointReconstructionHead(6, 8), 24)):
        assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
            'proj.weight': (width, 6),
            'proj.bias': (width,),
        }
        targets = torch.randn(2, 3, 8, 8) if width == 48 else torch.randn(2, 4, 8, 3)
        decoded = torch.randn(2, 4, 6)
        assert torch.equal(head(decoded), head.proj(decoded))
        assert list(head.losses(head(decoded), targets, MASK)) == ['loss']


@pytest.mark.parametrize('norm_pix', [True, False])
def test_coarse_pixels_are_means_of_squares(norm_pix):
    head, images = pixels(norm_pix=norm_pix), torch.randn(2, 3, 8, 8)
    fine, coarse = head.target(images), head.target(images, 2)
    assert coarse.shape == (2, 4, 12)
    patch, small = fine[1, 2].view(4, 4, 3), coarse[1, 2].view(2, 2, 3)
    for row in range(2):
        for column in range(2):
            expected = patch[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(dim=(0, 1))
            torch.testing.assert_close(small[row, column], expected)
    torch.testing.assert_close(head.target(images, 4)[1, 2], patch.mean(dim=(0, 1)))


def test_sparse_points_are_the_farthest_ones():
    groups = torch.zeros(1, 1, 8, 4)
    # On a line; its features take no part.
    groups[0, 0, :, 0] = torch.tensor([0.0, 1, -2, 3, 4, -5, 6, 10])
    groups[..., 3] = 100 * torch.randn(8)
    sparse = points().target(groups, 2)
    assert sparse[0, 0, :, 0].tolist() == [0, 10, -5, 4]
    assert points().target(groups, 4)[0, 0, :, 0].tolist() == [0, 10]
    assert torch.equal(points().target(groups), groups[..., :3])


@pytest.mark.parametrize('loss_type', ['l2', 'l1'])
def test_the_loss_of_pixels_is_the_mean_by_the_weights(loss_type):
    head, images, decoded = pixels(loss_type=loss_type), torch.randn(2, 3, 8, 8), torch.randn(2, 4, 6)
    total = 0.0
    for factor, weight in SCALES:
        layer = head.proj if factor == 1 else head.coarse[str(factor)]
        error = (layer(decoded) - head.target(images, factor))[MASK]
        total += weight * (error.square() if loss_type == 'l2' else error.abs()).mean()
    torch.testing.assert_close(head.loss(head(decoded), images, MASK), total / 3.5)


def test_the_loss_of_points_is_the_mean_by_the_weights():
    head, groups, decoded = points(), torch.randn(2, 4, 8, 3), torch.randn(2, 4, 6)
    total = 0.0
    for factor, weight in SCALES:
        layer = head.proj if factor == 1 else head.coarse[str(factor)]
        pred, target = layer(decoded)[MASK].view(4, -1, 3), head.target(groups, factor)[MASK]
        assert pred.shape == target.shape == (4, 8 // factor, 3)
        distances = torch.cdist(pred, target).square()
        total += weight * (distances.amin(dim=1).mean() + distances.amin(dim=2).mean())
    torch.testing.assert_close(head.loss(head(decoded), groups, MASK), total / 3.5)


@pytest.mark.parametrize('make', [pixels, points])
def test_every_scale_learns(make):
    head = make()
    targets = torch.randn(2, 3, 8, 8) if make is pixels else torch.randn(2, 4, 8, 3)
    head.loss(head(torch.randn(2, 4, 6)), targets, MASK).backward()
    gradients = {name: p.grad.abs().sum() for name, p in head.named_parameters()}
    assert set(gradients) == {
        f'{layer}.{kind}' for layer in ('proj', 'coarse.2', 'coarse.4') for kind in ('weight', 'bias')
    }
    assert all(value > 0 for value in gradients.values())


@pytest.mark.parametrize('make', [pixels, points])
@pytest.mark.parametrize(
    ('scales', 'match'),
    [
        ((), r'scales=\(\): factor 1'),
        (((2, 1.0),), 'factor 1, the full resolution'),
        (((1, 1.0), (3, 1.0)), 'factor 3 must be a positive integer that divides (patch_size=4|group_size=8)'),
        (((1, 1.0), (0, 1.0)), 'factor 0'),
        (((1, 1.0), (2.0, 1.0)), 'factor 2.0'),
        (((1, 1.0), (2, 0.5), (2, 0.1)), 'factor 2 is there twice'),
        (((1, 1.0), (2, 0)), 'weight 0 of factor 2 must be positive'),
        (((1, 1.0), (2, float('nan'))), 'weight nan of factor 2'),
        ((1, 2), r'1 is no pair \(factor, weight\)'),
        (2, r'2 is no pair \(factor, weight\)'),
    ],
)
def test_wrong_scales_are_named(make, scales, match):
    with pytest.raises(ValueError, match=match):
        make(scales=scales)


def test_a_model_counts_each_scale_once_and_draws_the_full_resolution(map_cfg):
    head = dict(type='PixelReconstructionHead', in_dim=32, scales=((1, 1.0), (4, 0.5)))
    model = MODELS.build(map_cfg(head=head)).eval()
    images, mask = torch.randn(2, 3, 64, 64), torch.arange(16).expand(2, -1) % 2 == 0
    result = model.reconstruct(images, mask)
    assert result.pred.shape == (2, 16, 768)
    assert result.images().shape == images.shape
    torch.testing.assert_close(result.images(), model.head.to_images(result.pred, images, (4, 4)))
    torch.manual_seed(1)
    losses = model.loss(images)
    assert set(losses) == {'loss', 'scale_1', 'scale_4'}
    loss, logged = model.parse_losses(losses)
    assert loss == losses['loss'] == logged['loss']
    torch.testing.assert_close(loss.detach(), (losses['scale_1'] + 0.5 * losses['scale_4']) / 1.5)


def test_a_cloud_is_drawn_with_all_its_points():
    model = MODELS.build(
        dict(
            type='MAP',
            backbone=dict(
                type='PointMAPHybrid',
                arch=dict(embed_dim=32, layout='MT', num_heads=4, d_state=4),
                num_groups=16,
                group_size=8,
            ),
            neck=dict(type='RegionCausalDecoder', in_dim=32, grid=None, embed_dim=32, depth=1, num_heads=4),
            head=dict(type='PointReconstructionHead', in_dim=32, group_size=8, scales=SCALES),
        )
    ).eval()
    result = model.reconstruct(torch.rand(2, 60, 3), torch.arange(16).expand(2, -1) < 6)
    assert result.pred.shape == (2, 16, 24)
    assert [len(cloud) for cloud in result.clouds()[1]] == [48, 48]
