"""Autoregressive pretraining: what predicts what, and what a checkpoint holds."""

import pytest
import torch

from mmmap.models.layers import MambaMixer
from mmmap.models.selfsup import AR
from mmmap.registry import MODELS

ARCH = dict(embed_dim=32, layout='MMMTM', num_heads=4)
SERIALIZATIONS = ['row', 'column', 'token', dict(type='block', size=3)]


def build(arch=ARCH, **backbone) -> AR:
    return MODELS.build(
        dict(
            type='AR',
            backbone=dict(type='MAPHybrid', arch=arch, img_size=32, patch_size=4, **backbone),
            neck=dict(type='NextRegionDecoder', in_dim=32, grid=8, embed_dim=16, depth=2, num_heads=4),
            head=dict(type='PixelReconstructionHead', in_dim=16, patch_size=4),
        )
    )


@pytest.mark.parametrize('serialization', SERIALIZATIONS, ids=str)
def test_a_region_is_predicted_from_all_regions_before_it_and_from_nothing_else(serialization):
    model = build(serialization=serialization)
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    result = model.reconstruct(images)
    regions = model.backbone.tokenize(images).region_ids
    last = int(regions.max())
    for region in {0, 1, last // 2, last}:
        (gradient,) = torch.autograd.grad(
            result.pred[:, regions == region].square().sum(), images, retain_graph=True, allow_unused=True
        )
        reached = model.head.patchify(gradient).abs().sum(dim=(0, 2)) > 0
        assert torch.equal(reached, regions < region)


def test_samples_do_not_mix():
    model, images = build().eval(), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model.reconstruct(images).pred[1:2], model.reconstruct(images[1:2]).pred)


@pytest.mark.parametrize('layout', ['MMMT', 'M', 'T', 'TM'])
def test_every_parameter_gets_a_gradient(layout):
    model = build(dict(ARCH, layout=layout))
    model.loss(torch.randn(2, 3, 32, 32))['loss'].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    for name, p in model.named_parameters():
        if name.rpartition('.')[2] in MambaMixer.directed:
            assert p.grad[0].abs().sum() > 0
            assert p.grad[1].abs().sum() == 0


def test_the_first_region_does_not_count():
    model, images = build(), torch.randn(2, 3, 32, 32)
    result = model.reconstruct(images)
    assert torch.equal(result.mask, (torch.arange(64) >= 8).expand(2, -1))
    target = model.head.target(images)
    torch.testing.assert_close(result.loss(), (result.pred - target)[:, 8:].square().mean())
    assert result.latent.shape == (2, 64, 32)
    assert result.images().shape == images.shape


def test_positions_tell_queries_and_latents_apart():
    # With equal patches everywhere only the positions differ.
    result = build().reconstruct(torch.ones(1, 3, 32, 32))
    assert (result.pred[0, 8:] - result.pred[0, 8]).abs().sum(-1)[1:].min() > 0


def test_a_checkpoint_holds_the_forward_scans_in_both_directions(tmp_path):
    model = build()
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    stacked = 0
    for name, value in model.state_dict().items():
        if name.rpartition('.')[2] in MambaMixer.directed:
            stacked += 1
            assert torch.equal(value, own[name][:1].expand_as(value))
        else:
            assert torch.equal(value, own[name])
    assert stacked == 4 * len(MambaMixer.directed)
    assert all(torch.equal(p, own[name]) for name, p in model.named_parameters())
    torch.save(model.state_dict(), tmp_path / 'ar.pth')
    restored = build()
    restored.load_state_dict(torch.load(tmp_path / 'ar.pth'))
    images = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(restored.reconstruct(images).pred, model.reconstruct(images).pred)


def test_regions_must_follow_the_serialization():
    with pytest.raises(ValueError, match=r'backbone\.regions'):
        build(regions='column')


@pytest.mark.parametrize(
    ('serialization', 'shape'),
    [
        ('row', (4, 32)),
        ('column', (32, 4)),
        ('token', (4, 4)),
        ('hilbert', (4, 32)),
        (dict(type='block', size=3), (12, 12)),
        (dict(type='block', size=3), (12, 8)),
    ],
    ids=str,
)
def test_an_image_of_one_region_is_refused(serialization, shape):
    model = build(serialization=serialization)
    with pytest.raises(ValueError, match=r'^AR predicts the next region, but all .* are one region') as error:
        model.loss(torch.randn(2, 3, *shape))
    assert '\n' not in str(error.value)
    # One patch more each way is another region.
    assert model.loss(torch.randn(2, 3, *(side + 4 for side in shape)))['loss'].isfinite()


def test_a_cloud_of_one_region_is_refused():
    backbone = dict(type='PointMAPHybrid', arch=ARCH, num_groups=8, group_size=4, region_size=4, local_neighbours=0)
    parts = dict(neck=dict(type='NextRegionDecoder', embed_dim=16), head=dict(type='PointReconstructionHead'))
    model = MODELS.build(dict(type='AR', backbone=backbone, **parts))
    model.backbone.tokenizer.num_groups = 4
    with pytest.raises(ValueError, match=r'^AR predicts the next region, but all 4 tokens .* are one region'):
        model.loss(torch.rand(2, 20, 3))


def test_it_learns():
    torch.manual_seed(0)
    model = build()
    # Rows of one brightness each, which rise from row to row: the next one follows from those before.
    start, step = torch.rand(2, 16, 1, 1, 1)
    images = (start + step * torch.linspace(0, 1, 8).repeat_interleave(4).view(1, 1, 32, 1)).expand(-1, 3, -1, 32)
    model.head.norm_pix = False
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = model.loss(images)['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
