"""Every method with every decoder on images and on clouds: it works, or it is refused by name when it is built."""

from dataclasses import replace

import pytest
import torch
from mmpretrain.models import SelfSupDataPreprocessor
from torch import nn

from mmmap.models.data_preprocessor import PointDataPreprocessor
from mmmap.models.reconstruction_results import CloudReconstruction, ImageReconstruction
from mmmap.registry import MODELS

ARCH = dict(embed_dim=32, layout='MMMT', num_heads=4, d_state=4)
IMAGES = dict(type='MAPHybrid', arch=ARCH, img_size=16, patch_size=4, serialization='column')
CLOUDS = dict(type='PointMAPHybrid', arch=ARCH, num_groups=16, group_size=8, local_neighbours=0)
RELEASED = CLOUDS | dict(released='v4', local_neighbours=4)
SMALL = dict(embed_dim=32, depth=1, num_heads=4)
CAUSAL, NEXT, OLD = (
    dict(type=name, **SMALL) for name in ('RegionCausalDecoder', 'NextRegionDecoder', 'ReleasedPointDecoder')
)
KINDS = {
    'images': (IMAGES, torch.rand(2, 3, 16, 16), ImageReconstruction, SelfSupDataPreprocessor),
    'clouds': (CLOUDS, torch.rand(2, 60, 3), CloudReconstruction, PointDataPreprocessor),
    'released clouds': (RELEASED, torch.rand(2, 60, 3), CloudReconstruction, PointDataPreprocessor),
}
WORK = [
    ('MAP', CAUSAL, KINDS),
    ('MAP', CAUSAL | dict(attention='full'), KINDS),
    ('MAP', NEXT, KINDS),
    ('MAP', OLD, ('clouds', 'released clouds')),
    ('AR', NEXT, ('images', 'clouds')),
    ('HybridSimMIM', None, KINDS),
]


def build(method: str, backbone: dict, neck: dict | None = None, **changes) -> nn.Module:
    head = 'PixelReconstructionHead' if backbone['type'] == 'MAPHybrid' else 'PointReconstructionHead'
    parts = dict(backbone=backbone, head=dict(type=head), **({} if neck is None else dict(neck=neck)))
    return MODELS.build(dict(type=method, **parts) | changes)


@pytest.mark.parametrize(('method', 'neck', 'kind'), [(m, n, kind) for m, n, kinds in WORK for kind in kinds])
def test_it_works(method, neck, kind):
    backbone, inputs, result, preprocessor = KINDS[kind]
    model = build(method, backbone, neck)
    assert type(model.data_preprocessor) is preprocessor
    reconstruction = model.reconstruct(inputs)
    assert type(reconstruction) is result
    reconstruction.loss().backward()
    assert reconstruction.loss() > 0
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    if result is ImageReconstruction:
        assert reconstruction.images().shape == inputs.shape
        with pytest.raises(TypeError, match='no clouds'):
            reconstruction.clouds()
    else:
        assert reconstruction.clouds()[1][0].shape[1] == 3


@pytest.mark.parametrize(
    ('method', 'backbone', 'neck', 'named'),
    [
        ('AR', IMAGES, CAUSAL, 'neck: a RegionCausalDecoder shows a region to its own prediction'),
        ('AR', CLOUDS, OLD, 'neck: a ReleasedPointDecoder shows a region to its own prediction'),
        ('AR', CLOUDS | dict(local_neighbours=4), NEXT, r'backbone\.local_neighbours=4: .* set local_neighbours=0'),
        ('AR', RELEASED, NEXT, 'a ReleasedPointMAPHybrid has no causal encoder'),
        ('AR', CLOUDS | dict(region_size=16), NEXT, r'backbone\.region_size=16: all tokens are one region'),
        (
            'AR',
            IMAGES | dict(img_size=(4, 16), serialization='row'),
            NEXT,
            r'backbone\.serialization: all 4 tokens are one region',
        ),
        (
            'MAP',
            IMAGES,
            OLD,
            'neck: a ReleasedPointDecoder is for CloudTokens, but the backbone, a MAPHybrid, makes Gr',
        ),
    ],
)
def test_it_is_refused_in_one_line(method, backbone, neck, named):
    with pytest.raises(ValueError, match=named) as error:
        build(method, backbone, neck)
    assert '\n' not in str(error.value)


def test_a_part_that_cannot_be_pretrained_is_refused_by_what_it_lacks():
    named = '^backbone: a Identity cannot be pretrained, as it has no check_causal, embed_dim, encode, '
    with pytest.raises(TypeError, match=named):
        MODELS.build(dict(type='MAP', backbone=nn.Identity(), neck=CAUSAL | dict(in_dim=32), head=nn.Identity()))
    with pytest.raises(
        TypeError, match=r'^head: a Identity cannot be pretrained, as it has no full_resolution, losses, r'
    ):
        build('MAP', IMAGES, CAUSAL, head=nn.Identity())


@pytest.mark.parametrize('kind', ['images', 'clouds'])
def test_a_region_is_predicted_from_the_regions_before_it_alone(kind):
    backbone, inputs, *_ = KINDS[kind]
    model = build('AR', backbone, NEXT).eval()
    tokens = model.backbone.tokenize(inputs)
    embeddings = tokens.embeddings.detach().requires_grad_()
    tokens = replace(tokens, embeddings=embeddings)
    decoded = model.neck(model.backbone.encode(tokens, causal=True), None, tokens) @ torch.randn(32)
    for region in range(4):
        own = tokens.region_ids == region
        (gradient,) = torch.autograd.grad(decoded[:, own].sum(), embeddings, retain_graph=True, allow_unused=True)
        reached = torch.zeros(16, dtype=torch.bool) if gradient is None else gradient.abs().sum(dim=(0, 2)) > 0
        assert torch.equal(reached, tokens.region_ids < region)


@pytest.mark.parametrize('kind', ['images', 'clouds'])
def test_the_next_region_decoder_sees_the_visible_tokens_of_earlier_regions(kind):
    backbone, inputs, *_ = KINDS[kind]
    model = build('MAP', backbone, NEXT).eval()
    tokens = model.backbone.tokenize(inputs)
    mask = torch.rand(2, 16).argsort(dim=1) < 6
    visible = tokens.visible_indices(mask, 6)
    latent = torch.randn(2, 10, 32, requires_grad=True)
    # The sum of what a norm gives does not change with it.
    decoded = model.neck(latent, visible, tokens) @ torch.randn(32)
    for token in range(16):
        (gradient,) = torch.autograd.grad(decoded[1, token], latent, retain_graph=True)
        assert torch.equal(gradient[1].abs().sum(-1) > 0, tokens.region_ids[visible[1]] < tokens.region_ids[token])
        assert not gradient[0].any()


def test_hidden_groups_reach_nothing_but_by_their_places():
    model = build('HybridSimMIM', CLOUDS).eval()
    tokens = model.backbone.tokenize(torch.rand(1, 60, 3))
    mask = torch.arange(16)[None] % 2 == 0
    other = torch.where(mask[..., None, None], torch.rand_like(tokens.groups), tokens.groups)
    latents = []
    for groups in (tokens.groups, other):
        made = model.backbone.embed(tokens.coords, groups)
        model.backbone.tokenize = lambda _inputs, made=made: made
        latents.append(model.reconstruct(torch.rand(1, 60, 3), mask).latent)
    assert torch.equal(*latents)


def test_the_hook_of_a_model_leaves_its_siblings_alone():
    both = nn.ModuleDict(dict(map=build('MAP', IMAGES, CAUSAL), ar=build('AR', IMAGES, NEXT)))
    own = {name: p.detach().clone() for name, p in both.named_parameters()}
    state = both.state_dict()
    changed = {name for name, value in own.items() if not torch.equal(value, state[name])}
    assert changed
    assert all(name.startswith('ar.') for name in changed)
