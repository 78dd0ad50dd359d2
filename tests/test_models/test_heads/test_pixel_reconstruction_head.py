import pytest
import torch

from mmmap.models.heads import PixelReconstructionHead
from mmmap.registry import MODELS


def head(**options) -> PixelReconstructionHead:
    return PixelReconstructionHead(**(dict(in_dim=8, patch_size=4) | options))


def test_order_within_and_of_patches():
    images = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12).float()
    patches = head().patchify(images)
    assert patches.shape == (2, 6, 48)
    for row, column in ((0, 0), (0, 2), (1, 1)):
        cut = images[1, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(patches[1, 3 * row + column].view(4, 4, 3), cut.permute(1, 2, 0))


@pytest.mark.parametrize(('size', 'channels'), [((8, 8), 3), ((4, 20), 3), ((20, 4), 1)])
def test_unpatchify_is_the_inverse(size, channels):
    images = torch.randn(2, channels, *size)
    layer = head(in_channels=channels)
    assert torch.equal(layer.unpatchify(layer.patchify(images), (size[0] // 4, size[1] // 4)), images)


def test_targets_have_zero_mean_and_unit_variance():
    target = head().target(torch.randn(2, 3, 8, 8) * 7 + 5)
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1, unbiased=True), torch.ones(2, 4))


def test_targets_of_patches_without_contrast():
    images = torch.full((1, 3, 4, 12), 0.7)
    pattern = torch.randn(3, 4, 4)
    pattern = (pattern - pattern.mean()) / pattern.std()
    images[0, :, :, 4:8] += 1e-3 * pattern  # As little contrast as the 1e-6 under the root is made for.
    images[0, :, :, 8:] += pattern
    target = head().target(images.double())
    expected = pattern.permute(1, 2, 0).flatten().double()
    assert target[0, 0].abs().max() < 1e-9
    torch.testing.assert_close(target[0, 1], expected / 2**0.5, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(target[0, 2], expected, rtol=1e-5, atol=1e-5)


def test_raw_pixels_as_targets():
    images = torch.randn(2, 3, 8, 8)
    layer = head(norm_pix=False)
    assert torch.equal(layer.target(images), layer.patchify(images))


def test_loss_is_the_mean_over_hidden_patches():
    images, pred = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 48)
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    layer = head()
    target = layer.target(images)
    errors = [
        sum((pred[i, j, p] - target[i, j, p]).item() ** 2 for p in range(48)) / 48
        for i in range(2)
        for j in range(4)
        if mask[i, j]
    ]
    assert layer.loss(pred, images, mask).item() == pytest.approx(sum(errors) / 4, rel=1e-5)
    assert layer.loss(target, images, mask).item() == 0


def test_absolute_error():
    images, pred = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 48)
    layer, mask = head(loss_type='l1'), torch.tensor([[True, False, True, False], [False, False, True, True]])
    torch.testing.assert_close(layer.loss(pred, images, mask), (pred - layer.target(images)).abs()[mask].mean())
    with pytest.raises(ValueError, match="loss_type='mse'"):
        head(loss_type='mse')


def test_visible_patches_take_no_part():
    images, pred = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 48, requires_grad=True)
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    layer = head()
    loss = layer.loss(pred, images, mask)
    loss.backward()
    assert torch.equal((pred.grad != 0).any(-1), mask)
    assert (pred.grad[mask] != 0).all()
    changed = images.clone()
    changed[0, :, :4, 4:] += torch.randn(3, 4, 4)
    assert torch.equal(layer.loss(pred, changed, mask), loss)


def test_loss_of_half_precision_predictions_is_float32():
    images, mask = torch.randn(1, 3, 8, 8), torch.ones(1, 4).bool()
    assert head().loss(torch.randn(1, 4, 48).bfloat16(), images, mask).dtype == torch.float32


@pytest.mark.parametrize('norm_pix', [True, False])
@pytest.mark.parametrize('size', [(8, 8), (4, 12)])
def test_a_perfect_prediction_gives_back_the_images(norm_pix, size):
    images = torch.randn(2, 3, *size) * 3 + 1
    layer = head(norm_pix=norm_pix)
    again = layer.to_images(layer.target(images), images, (size[0] // 4, size[1] // 4))
    torch.testing.assert_close(again, images)


def test_output_width():
    assert head(patch_size=2, in_channels=1)(torch.randn(3, 5, 8)).shape == (3, 5, 4)
    assert MODELS.build(dict(type='PixelReconstructionHead')).proj.weight.shape == (768, 192)


def test_a_misspelt_argument_is_named():
    with pytest.raises(TypeError, match='norm_pixels'):
        MODELS.build(dict(type='PixelReconstructionHead', norm_pixels=True))
