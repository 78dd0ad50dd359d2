"""JointMAP: two pretraining models with one encoder."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from mmmap.models.backbones import MAPHybrid, PointMAPHybrid
from mmmap.registry import MODELS

ARCH = dict(embed_dim=32, layout='MMMT', num_heads=4, mlp_ratio=2.0, d_state=4)
SHARED = ('encoder.', 'pos_embed.')


#: What makes of a part one of autoregressive pretraining.
AHEAD = dict(type='AR', neck=dict(type='NextRegionDecoder', embed_dim=32, depth=1, num_heads=4))


def image_part(**backbone) -> dict:
    return dict(
        type='MAP',
        data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 2.0]),
        backbone=dict(type='MAPHybrid', arch=ARCH, img_size=16, patch_size=4, pos_embed='coordinates') | backbone,
        neck=dict(type='RegionCausalDecoder', embed_dim=32, depth=1, num_heads=4),
        head=dict(type='PixelReconstructionHead'),
    )


def points_part(**backbone) -> dict:
    return dict(
        type='MAP',
        data_preprocessor=dict(type='PointDataPreprocessor'),
        backbone=dict(type='PointMAPHybrid', arch=ARCH, num_groups=16, group_size=8, local_neighbours=0) | backbone,
        neck=dict(type='RegionCausalDecoder', embed_dim=32, depth=1, num_heads=4),
        head=dict(type='PointReconstructionHead', scales=((1, 1.0), (2, 1.0))),
    )


def build(**changes) -> torch.nn.Module:
    return MODELS.build(dict(type='JointMAP', image=image_part(), points=points_part()) | changes)


@pytest.mark.parametrize('option', [dict(d_conv=4), dict(qkv_bias=True), dict(d_conv=4, expand=2)])
def test_an_option_that_is_given_equals_its_default(option):
    encoder = build(points=points_part(arch=ARCH | option)).points.backbone.encoder
    assert encoder.settings.items() >= option.items()


def images(count: int = 2) -> dict:
    return dict(inputs=torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8), data_samples=None)


def clouds(count: int = 2) -> dict:
    return dict(inputs=[torch.rand(60, 3) for _ in range(count)], data_samples=None)


def test_one_encoder_and_one_position_encoding_counted_once():
    model = build()
    assert model.points.backbone.encoder is model.image.backbone.encoder
    assert model.points.backbone.pos_embed is model.image.backbone.pos_embed
    shared = sum(p.numel() for n, p in model.image.backbone.named_parameters() if n.startswith(SHARED))
    apart = sum(p.numel() for part in (image_part(), points_part()) for p in MODELS.build(part).parameters())
    assert sum(p.numel() for p in model.parameters()) == apart - shared


def test_learned_positions_stay_the_images_own():
    model = build(image=image_part(pos_embed='learned'))
    assert model.points.backbone.encoder is model.image.backbone.encoder
    assert model.image.backbone.pos_embed is not model.points.backbone.pos_embed


@pytest.mark.parametrize(('name', 'batch'), [('image', images), ('points', clouds)])
def test_a_batch_trains_its_part_and_the_encoder(name, batch):
    model = build()
    data = model.data_preprocessor(batch(), True)
    losses = model(**data, mode='loss')
    loss, logged = model.parse_losses(losses)
    assert loss == losses[f'{name}_loss'] == logged['loss']
    assert ('points_scale_2' in losses) == (name == 'points')
    loss.backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    expected = {n for n, _ in model.named_parameters() if n.startswith((f'{name}.', 'image.backbone.encoder.'))}
    expected |= {n for n, _ in model.named_parameters() if n.startswith('image.backbone.pos_embed.')}
    assert trained == expected


def test_each_kind_is_preprocessed_and_rebuilt_by_its_part():
    model = build().eval()
    raw, points = images(), clouds()
    pixels = model.data_preprocessor(copy.deepcopy(raw))['inputs']
    torch.testing.assert_close(pixels, (raw['inputs'] - torch.tensor([1.0, 2, 3]).view(3, 1, 1)) / 2)
    stacked = model.data_preprocessor(points)['inputs']
    assert torch.equal(stacked, torch.stack(points['inputs']))
    mask = torch.arange(16).expand(2, -1) % 2 == 0
    for part, inputs in ((model.image, pixels), (model.points, stacked)):
        assert torch.equal(model.reconstruct(inputs, mask).pred, part.reconstruct(inputs, mask).pred)
        assert torch.equal(model(inputs)[0], part.backbone(inputs)[0])
        assert torch.equal(model.extract_feat(inputs)[0], part.backbone(inputs)[0])
    with pytest.raises(RuntimeError, match='predict'):
        model(pixels, mode='predict')
    with pytest.raises(ValueError, match=r'shape \(3,\) is neither an image'):
        model.reconstruct(torch.rand(2, 3))


def test_the_weight_of_clouds():
    losses = []
    for weight in (1.0, 4.0):
        torch.manual_seed(0)
        model = build(points_weight=weight)
        torch.manual_seed(1)
        losses.append(model.loss(torch.rand(2, 60, 3)))
        torch.manual_seed(1)
        losses.append(model.loss(torch.rand(2, 3, 16, 16)))
    torch.testing.assert_close(losses[2]['points_loss'], 4 * losses[0]['points_loss'])
    torch.testing.assert_close(losses[2]['points_scale_2'], losses[0]['points_scale_2'])
    torch.testing.assert_close(losses[3]['image_loss'], losses[1]['image_loss'])


def test_a_checkpoint_starts_a_backbone_of_either_kind():
    model = build().eval()
    weights = model.state_dict()
    for name, kind, inputs in (
        ('image', MAPHybrid, torch.rand(2, 3, 16, 16)),
        ('points', PointMAPHybrid, torch.rand(2, 60, 3)),
    ):
        cfg = dict(image=image_part, points=points_part)[name]()['backbone']
        backbone = MODELS.build(cfg | dict(out_type='raw')).eval()
        assert type(backbone) is kind
        prefix = f'{name}.backbone.'
        own = {n.removeprefix(prefix): value for n, value in weights.items() if n.startswith(prefix)}
        backbone.load_state_dict(own, strict=True)
        assert torch.equal(backbone(inputs)[0], model(inputs)[0])


@pytest.mark.parametrize('copied', [False, True])
def test_loading_and_copying_keep_the_encoder_one(copied):
    source, target = build(), build()
    target.load_state_dict(source.state_dict(), strict=True)
    if copied:
        target = copy.deepcopy(target)
    assert target.points.backbone.encoder is target.image.backbone.encoder
    for name, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], value)
    target.init_weights()


def test_layer_decay_knows_both_parts_and_no_parameter_twice():
    model = build()
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        constructor='LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    rates = {name: group['lr'] for group in groups for name in group['param_names']}
    assert sum(len(group['params']) for group in groups) == len(rates)
    assert set(rates) == {name for name, _ in model.named_parameters()}
    assert rates['image.backbone.patch_embed.weight'] == rates['points.backbone.tokenizer.fc1.weight'] == 0.5**5
    assert rates['image.backbone.pos_embed.fc1.weight'] == 0.5**5
    assert rates['image.backbone.encoder.blocks.3.attn.qkv.weight'] == 0.5
    assert rates['points.neck.embed.weight'] == rates['image.head.proj.weight'] == 1


@pytest.mark.parametrize(
    ('changes', 'error', 'match'),
    [
        (
            dict(points=points_part(arch=ARCH | dict(num_heads=8))),
            ValueError,
            r'image.backbone and points.backbone differ: num_heads \(4, 8\)$',
        ),
        (
            dict(points=points_part(local_neighbours=4, arch=ARCH | dict(embed_dim=64))),
            ValueError,
            r'embed_dim \(32, 64\), local_neighbours \(0, 4\)$',
        ),
        (dict(image=image_part(drop_path_rate=0.1)), ValueError, r'drop_path_rate \(0.1, 0.0\)$'),
        (
            dict(points=points_part(released='v4', local_neighbours=4)),
            TypeError,
            'points.backbone: its encoder is a ReleasedPointEncoder',
        ),
        (dict(points=points_part()['head']), TypeError, 'points: PointReconstructionHead is no pretraining model'),
        (dict(points=image_part()), TypeError, 'points.backbone: a MAPHybrid does not make CloudTokens'),
        (dict(image=dict(image_part(), **AHEAD)), ValueError, 'image is a AR and points is a MAP: one encoder'),
        (dict(points_weight=0), ValueError, 'points_weight=0 must be positive'),
        (dict(data_preprocessor=None), TypeError, 'data_preprocessor'),
    ],
)
def test_parts_that_do_not_fit_are_named(changes, error, match):
    with pytest.raises(error, match=match):
        build(**changes)


def test_two_autoregressive_parts():
    model = build(image=dict(image_part(), **AHEAD), points=dict(points_part(), **AHEAD))
    for inputs in (torch.rand(2, 3, 16, 16), torch.rand(2, 60, 3)):
        loss = sum(value for name, value in model.loss(inputs).items() if name.endswith('loss'))
        loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.load_state_dict(model.state_dict(), strict=True)
