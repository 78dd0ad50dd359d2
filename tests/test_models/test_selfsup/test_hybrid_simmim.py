"""SimMIM: hidden patches are replaced before the encoder."""

import pytest
import torch

from mmmap.models.selfsup import HybridSimMIM
from mmmap.registry import MODELS


def build(serialization='row', **options) -> HybridSimMIM:
    arch = dict(embed_dim=32, layout='MMT', num_heads=4)
    return MODELS.build(
        dict(
            type='HybridSimMIM',
            backbone=dict(type='MAPHybrid', arch=arch, img_size=32, patch_size=8, serialization=serialization),
            head=dict(type='PixelReconstructionHead', in_dim=32, patch_size=8, norm_pix=False, loss_type='l1'),
            **options,
        )
    )


@pytest.mark.parametrize('serialization', ['row', 'column'])
def test_hidden_pixels_reach_nothing_and_all_tokens_are_encoded(serialization):
    model = build(serialization, masking=dict(type='RandomMasking', ratio=0.6))
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    result = model.reconstruct(images)
    assert result.latent.shape == (2, 16, 32)
    assert (result.mask.sum(1) == 10).all()
    (gradient,) = torch.autograd.grad(result.pred.square().sum(), images)
    reached = model.head.patchify(gradient).abs().sum(-1) > 0
    assert torch.equal(reached, ~result.mask)


def test_the_serialization_changes_what_the_encoder_reads_and_not_where_predictions_lie():
    mask = torch.arange(16).expand(2, -1) % 3 == 0
    images = torch.randn(2, 3, 32, 32)
    row, column = build().eval(), build('column').eval()
    column.load_state_dict(row.state_dict())
    result = column.reconstruct(images, mask)
    order = torch.arange(16).view(4, 4).t().flatten()
    torch.testing.assert_close(column.head(result.latent), result.pred[:, order])
    assert not torch.allclose(row.reconstruct(images, mask).pred, result.pred, rtol=1e-2, atol=1e-2)


def test_loss_is_the_absolute_error_of_hidden_patches():
    model, images = build(), torch.randn(2, 3, 32, 32)
    result = model.reconstruct(images)
    error = (result.pred - model.head.patchify(images)).abs().mean(-1)
    torch.testing.assert_close(result.loss(), error[result.mask].mean())


def test_every_parameter_gets_a_gradient():
    model = build()
    model.loss(torch.randn(2, 3, 32, 32))['loss'].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_decoder_is_refused():
    with pytest.raises(TypeError, match='neck'):
        build(neck=dict(type='RegionCausalDecoder', in_dim=32))
