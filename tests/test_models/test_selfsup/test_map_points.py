"""MAP on clouds of points: the same class with other parts."""

import pytest
import torch
from torch import nn

from mmmap.models.reconstruction_results import CloudReconstruction
from mmmap.registry import MODELS

BACKBONE = dict(
    type='PointMAPHybrid',
    arch=dict(embed_dim=32, layout='MMMT', num_heads=4, d_state=4),
    num_groups=16,
    group_size=8,
)

IMAGES = dict(type='MAPHybrid', arch=dict(embed_dim=32, layout='MMMT', num_heads=4), img_size=64)


def build(neck: dict | None = None, **changes) -> nn.Module:
    decoder = dict(type='RegionCausalDecoder', embed_dim=32, depth=2, num_heads=4)
    cfg = dict(type='MAP', backbone=BACKBONE, neck=decoder | (neck or {}))
    return MODELS.build(cfg | dict(head=dict(type='PointReconstructionHead')) | changes)


def shapes(number: int) -> torch.Tensor:
    """Cylinders of any width and height, and boxes."""
    angle, height = torch.rand(2, number, 64) * torch.tensor([2 * torch.pi, 1])[:, None, None]
    width, tall = torch.rand(2, number, 1) + 0.3
    round_ = torch.stack([width * angle.cos(), width * angle.sin(), tall * height], dim=-1)
    flat = torch.stack([round_[..., 0], round_[..., 1].sign() * width, round_[..., 2]], dim=-1)
    return torch.where((torch.arange(number) % 2 == 0)[:, None, None], round_, flat)


def test_every_parameter_gets_a_gradient():
    model = build()
    model.loss(torch.rand(2, 60, 3))['loss'].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # A bias in front of a batch norm has none but by rounding, yet it is a part of the layer.
    assert without == []


def test_a_reconstruction_tells_what_was_shown_and_what_was_rebuilt():
    model, points = build().eval(), torch.rand(2, 60, 3)
    mask = torch.rand(2, 16).argsort(1).argsort(1) < 6
    result = model.reconstruct(points, mask)
    assert isinstance(result, CloudReconstruction)
    assert result.latent.shape == (2, 10, 32)
    assert result.pred.shape == (2, 16, 24)
    assert torch.equal(result.mask, mask)
    visible, rebuilt = result.clouds()
    assert [x.shape for x in visible] == [(80, 3)] * 2
    assert [x.shape for x in rebuilt] == [(48, 3)] * 2
    # In the frame of the inputs: what is visible are points of the clouds.
    for cloud, shown in zip(points, visible, strict=True):
        assert torch.cdist(shown, cloud).amin(dim=1).max() < 1e-3
    tokens = model.backbone.tokenize(points)
    predicted = result.pred.view(2, 16, 8, 3) + tokens.coords[:, :, None]
    torch.testing.assert_close(rebuilt[1], predicted[1, mask[1]].flatten(0, 1))
    with pytest.raises(TypeError, match='no images'):
        result.images()


def test_the_encoder_sees_visible_groups_only():
    model, points = build().eval(), torch.rand(1, 60, 3)
    mask = torch.arange(16)[None] % 2 == 0
    tokens = model.backbone.tokenize(points)
    expected = model.backbone.encoder(tokens.embeddings[:, 1::2], coords=tokens.coords[:, 1::2])
    torch.testing.assert_close(model.reconstruct(points, mask).latent, expected)


def test_no_region_sees_a_later_one_in_the_decoder():
    model, points = build().eval(), torch.rand(1, 60, 3)
    tokens = model.backbone.tokenize(points)
    latent = torch.randn(1, 16, 32)
    before = model.neck(latent, None, tokens)
    latent[:, 8:] += 1  # The last two of four regions.
    after = model.neck(latent, None, tokens)
    torch.testing.assert_close(after[:, :8], before[:, :8])
    assert not torch.allclose(after[:, 8:], before[:, 8:])


def test_a_cloud_gives_the_same_alone_and_in_any_order():
    model, points = build().eval(), torch.rand(3, 60, 3)
    mask = torch.rand(3, 16).argsort(1).argsort(1) < 6
    with torch.no_grad():
        pred = model.reconstruct(points, mask).pred
        alone = model.reconstruct(points[1:2][:, torch.randperm(60)], mask[1:2]).pred
    torch.testing.assert_close(alone[0], pred[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'named'),
    [
        (dict(neck=dict(grid=4)), r'neck.grid=4, but backbone has grid=None: leave neck.grid out'),
        (dict(neck=dict(in_dim=48)), r'neck.in_dim=48, but backbone has width=32'),
        (dict(head=dict(type='PointReconstructionHead', group_size=4)), r'head.group_size=4, but backbone has .*=8'),
        (dict(head=dict(type='PointReconstructionHead', in_dim=8)), r'head.in_dim=8, but neck has width=32'),
        (dict(head=dict(type='PixelReconstructionHead')), 'head: a PixelReconstructionHead is for GridTokens, but'),
        (dict(backbone=IMAGES, neck=dict(grid=None)), r'neck.grid=None, but backbone has grid=\(4, 4\)'),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, named):
    with pytest.raises(ValueError, match=named):
        build(**changes)


def test_it_learns():
    model = build(masking=dict(type='RandomMasking', ratio=0.6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        loss = model.loss(shapes(16))['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    held_out = shapes(32)
    with torch.no_grad():
        evaluated = model.eval().loss(held_out)['loss'].item()
    # A constant prediction, all points at the centre, is what nothing learnt comes to.
    groups = model.backbone.tokenize(held_out).groups
    constant = 2 * groups.square().sum(dim=-1).mean().item()
    assert evaluated < losses[0] / 3
    assert evaluated < constant / 2
