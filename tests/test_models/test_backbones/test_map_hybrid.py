"""What MAPHybrid returns, freezes and refuses."""

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as PRETRAIN_MODELS

from mmmap.models.backbones import MAPHybrid
from mmmap.models.layers import register_order

ARCH = dict(embed_dim=32, layout='MMMT', num_heads=4, num_registers=3, d_state=4)
IMAGES = (2, 3, 64, 64)


@pytest.mark.parametrize('registry', [ROOT_MODELS, PRETRAIN_MODELS], ids=['root', 'mmpretrain'])
def test_builds_from_a_bare_name(registry):
    model = registry.build(dict(type='MAPHybrid', arch=ARCH, img_size=64))
    assert isinstance(model, MAPHybrid)
    assert isinstance(model, BaseModule)


def test_builds_under_a_default_scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        cfg = dict(type='ImageClassifier', backbone=dict(type='MAPHybrid', arch=ARCH, out_type='avg_featmap'))
        assert isinstance(PRETRAIN_MODELS.build(cfg).backbone, MAPHybrid)


@pytest.mark.parametrize(
    ('out_type', 'shape'),
    [('registers', (2, 3, 32)), ('avg_featmap', (2, 32)), ('featmap', (2, 32, 4, 4)), ('raw', (2, 16, 32))],
)
def test_out_types(build_backbone, out_type, shape):
    model = build_backbone(out_type=out_type)
    outs = model(torch.randn(IMAGES))
    assert isinstance(outs, tuple)
    assert [out.shape for out in outs] == [shape]
    assert outs[0].is_contiguous()
    outs[0].sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize('num_registers', [0, 3])
def test_out_types_agree(build_backbone, num_registers):
    images = torch.randn(IMAGES)
    raw = build_backbone(out_type='raw', num_registers=num_registers).eval()
    outs = {'raw': raw(images)[0]}
    for out_type in ('avg_featmap', 'featmap', 'registers')[: 2 + (num_registers > 0)]:
        model = build_backbone(out_type=out_type, num_registers=num_registers).eval()
        model.load_state_dict(raw.state_dict())
        (outs[out_type],) = model(images)
    assert outs['raw'].shape == (2, 16 + num_registers, 32)
    # 16 tokens and 3 registers: runs of four tokens, a register behind each of the first three.
    registers = [4, 9, 14] if num_registers else []
    tokens = [i for i in range(16 + num_registers) if i not in registers]
    torch.testing.assert_close(outs['featmap'].flatten(2).transpose(1, 2), outs['raw'][:, tokens])
    torch.testing.assert_close(outs['avg_featmap'], outs['raw'][:, tokens].mean(1))
    if num_registers:
        torch.testing.assert_close(outs['registers'], outs['raw'][:, registers])


def test_cells_of_a_feature_map_lie_where_their_patches_do(build_backbone):
    model = build_backbone(layout='T', out_type='featmap').eval()
    # No mixing: each token tells of its own patch.
    model.encoder.blocks[0].attn.forward = lambda x, attend: x
    images = torch.randn(1, 3, 32, 80)
    changed = images.clone()
    changed[..., 16:32, 48:64] += 1
    difference = (model(images)[0] - model(changed)[0]).abs().sum(1)[0]
    assert difference.nonzero().tolist() == [[1, 3]]


def test_out_indices(build_backbone):
    images = torch.randn(IMAGES)
    model = build_backbone(out_type='featmap', out_indices=(0, 2, 3)).eval()
    outs = model(images)
    assert [out.shape for out in outs] == [(2, 32, 4, 4)] * 3
    assert not torch.equal(outs[0], outs[1])
    for index, out in ((-1, outs[2]), (-2, outs[1]), (3, outs[2]), ((-4,), outs[0])):
        other = build_backbone(out_type='featmap', out_indices=index).eval()
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(other(images), (out,))


@pytest.mark.parametrize('out_type', ['registers', 'avg_featmap', 'featmap', 'raw'])
@pytest.mark.parametrize(
    'size', [(64, 64), (32, 96), (112, 48), (16, 80), (80, 16), (16, 16), (208, 176)], ids=lambda s: f'{s[0]}x{s[1]}'
)
def test_any_grid(build_backbone, out_type, size):
    rows, columns = size[0] // 16, size[1] // 16
    (out,) = build_backbone(out_type=out_type, num_registers=3).eval()(torch.randn(1, 3, *size))
    length = rows * columns
    shapes = dict(registers=(1, 3, 32), avg_featmap=(1, 32), featmap=(1, 32, rows, columns), raw=(1, length + 3, 32))
    assert out.shape == shapes[out_type]
    assert out.isfinite().all()


def test_more_registers_than_tokens(build_backbone):
    (out,) = build_backbone(num_registers=40)(torch.randn(1, 3, 32, 32))
    assert out.shape == (1, 40, 32)


def test_built_for_a_size_that_is_not_square(build_backbone):
    model = build_backbone(img_size=(32, 96), out_type='featmap')
    assert model.pos_embed.weight.shape == (1, 2, 6, 32)
    assert model(torch.randn(1, 3, 32, 96))[0].shape == (1, 32, 2, 6)
    assert model(torch.randn(1, 3, 96, 32))[0].shape == (1, 32, 6, 2)


def test_other_channels_and_patches(build_backbone):
    model = build_backbone(in_channels=1, patch_size=8, out_type='featmap')
    assert model(torch.randn(1, 1, 64, 32))[0].shape == (1, 32, 8, 4)


def test_samples_do_not_depend_on_their_batch(build_backbone):
    model = build_backbone().eval()
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(model(images)[0], torch.cat([model(image[None])[0] for image in images]))


def test_checkpointing_changes_nothing(build_backbone):
    images, gradients = torch.randn(IMAGES), []
    model = build_backbone(drop_path_rate=0.3)
    for with_cp in (False, True):
        model.encoder.with_cp = with_cp
        torch.manual_seed(1)
        gradients.append(torch.autograd.grad(model(images)[0].square().sum(), list(model.parameters())))
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)
    assert build_backbone(with_cp=True).encoder.with_cp


def test_tokens(build_backbone):
    tokens = build_backbone(out_type='raw').tokenize(torch.randn(2, 3, 48, 32))
    assert tokens.grid == (3, 2)
    assert tokens.embeddings.shape == (2, 6, 32)
    assert tokens.region_ids.tolist() == [0, 0, 1, 1, 2, 2]
    assert tokens.coords.shape == (6, 2)


def test_weight_init_and_drop_path_reach_the_encoder(build_backbone):
    model = build_backbone(weight_init='released', drop_path_rate=0.2)
    assert not model.encoder.blocks[0].mixer.dt_proj_bias.any()
    assert model.encoder.drop_path.drop_prob == 0.2
    assert build_backbone().encoder.blocks[0].mixer.dt_proj_bias.all()


def test_init_weights_keeps_the_initialisation(build_backbone):
    model = build_backbone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# frozen_stages

EMBEDDING = ('patch_embed.', 'pos_embed.', 'register_')


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages(build_backbone, frozen_stages):
    model = build_backbone(frozen_stages=frozen_stages, drop_path_rate=0.1).train()
    prefixes = [f'encoder.blocks.{i}.' for i in range(frozen_stages)]
    prefixes += EMBEDDING if frozen_stages >= 0 else ()
    prefixes += ['encoder.norm.'] if frozen_stages == 4 else []
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(tuple(prefixes)), name
    for i, block in enumerate(model.encoder.blocks):
        assert all(module.training == (i >= frozen_stages) for module in block.modules())
    assert model.patch_embed.training == model.pos_embed.training == (frozen_stages < 0)
    assert model.encoder.norm.training == model.encoder.drop_path.training == (frozen_stages < 4)
    model.eval()
    assert not any(module.training for module in model.modules())


def test_frozen_weights_get_no_gradient_and_others_do(build_backbone):
    model = build_backbone(frozen_stages=2)
    model(torch.randn(IMAGES))[0].sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), name


def test_a_wholly_frozen_backbone_is_deterministic_in_training(build_backbone):
    model = build_backbone(frozen_stages=4, drop_path_rate=0.5).train()
    images = torch.randn(8, 3, 64, 64)
    (first,), (second,) = model(images), model(images)
    assert not first.requires_grad
    assert torch.equal(first, second)


# Layer-wise learning rates


def test_layer_depths(build_backbone):
    model = build_backbone()
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert {total for _, total in depths.values()} == {6}
    for name, (depth, _) in depths.items():
        if name.startswith(EMBEDDING):
            assert depth == 0, name
        elif name.startswith('encoder.blocks.'):
            assert depth == int(name.split('.')[2]) + 1, name
        else:
            assert (name, depth) == ('encoder.norm.weight', 5)
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (5, 6)
    assert model.get_layer_depth('patch_embed.weight') == (0, 6)


def test_layer_decay_of_mmpretrain(build_map):
    from mmpretrain.engine import LearningRateDecayOptimWrapperConstructor

    constructor = LearningRateDecayOptimWrapperConstructor(
        dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05)),
        dict(layer_decay_rate=0.5, flat_decay_mult=0.0),
    )
    model = build_map()
    groups = {group['param_name']: group for group in constructor(model).optimizer.param_groups}
    assert sorted(groups) == sorted(name for name, _ in model.named_parameters())
    assert groups['backbone.pos_embed.weight']['lr'] == 0.5**5
    assert groups['backbone.encoder.blocks.0.norm.weight']['lr'] == 0.5**4
    assert groups['backbone.encoder.blocks.3.attn.qkv.weight']['lr'] == 0.5
    assert groups['backbone.encoder.norm.weight']['lr'] == groups['neck.mask_token']['lr'] == 1
    assert groups['backbone.encoder.norm.weight']['weight_decay'] == 0
    assert groups['backbone.encoder.blocks.3.attn.qkv.weight']['weight_decay'] == 0.05


def test_positions_made_of_coordinates(build_backbone):
    model = build_backbone(pos_embed='coordinates', out_type='featmap', num_registers=0)
    images = torch.randn(2, 3, 32, 64)
    # The centres of two rows and four columns in a square around the origin, on the plane z = 0.
    centres = [[row, column, 0] for row in (-0.5, 0.5) for column in (-0.75, -0.25, 0.25, 0.75)]
    tokens = model.tokenize(images)
    embedded = model.patch_embed(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens.embeddings, embedded + model.pos_embed(torch.tensor(centres)))
    # Another size, and none is stored.
    (out,) = model(images)
    out.sum().backward()
    assert out.shape == (2, 32, 2, 4)
    assert all(p.grad is not None for p in model.parameters())
    assert {name for name in model.state_dict() if name.startswith('pos_embed')} == {
        f'pos_embed.{layer}.{kind}' for layer in ('fc1', 'fc2') for kind in ('weight', 'bias')
    }
    assert model.get_layer_depth('backbone.pos_embed.fc1.weight', 'backbone.') == (0, 6)
    assert model.half().tokenize(images.half()).embeddings.dtype == torch.half


# Wrong input


@pytest.mark.parametrize(
    ('argument', 'error', 'culprit'),
    [
        (dict(num_register=12), TypeError, 'num_register'),
        (dict(arch='bas'), ValueError, "arch='bas'"),
        (dict(img_size=70), ValueError, '70x70'),
        (dict(pos_embed='coordinate'), ValueError, "pos_embed='coordinate'"),
        (dict(pos_embed='coordinates', img_size=70), ValueError, '70x70'),
        (dict(img_size=(64, 64, 3)), ValueError, 'img_size'),
        (dict(img_size=0), ValueError, 'img_size=0'),
        (dict(out_type='cls_token'), ValueError, "out_type='cls_token'"),
        (dict(num_registers=0), ValueError, 'num_registers=0'),
        (dict(num_registers=-1, out_type='raw'), ValueError, 'num_registers=-1'),
        (dict(out_indices=4), ValueError, 'out_indices=4'),
        (dict(out_indices=-5), ValueError, 'out_indices=-5'),
        (dict(out_indices=()), ValueError, r'out_indices=\(\)'),
        (dict(frozen_stages=5), ValueError, 'frozen_stages=5'),
        (dict(frozen_stages=-2), ValueError, 'frozen_stages=-2'),
        (dict(weight_init='mae'), ValueError, "weight_init='mae'"),
        (dict(drop_path_rate=1.5), ValueError, 'drop_path_rate=1.5'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_wrong_arguments_are_named(argument, error, culprit):
    cfg = dict(type='MAPHybrid', arch=ARCH, img_size=64) | argument
    with pytest.raises(error, match=culprit) as raised:
        ROOT_MODELS.build(cfg)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize(
    ('shape', 'culprits'),
    [
        ((1, 3, 64, 72), ['64x72', 'patch_size=16', 'pad_size_divisor']),
        ((1, 1, 64, 64), ['(1, 1, 64, 64)', '(B, 3, H, W)']),
        ((3, 64, 64), ['(3, 64, 64)']),
    ],
)
def test_wrong_inputs_are_named(build_backbone, shape, culprits):
    with pytest.raises(ValueError) as raised:
        build_backbone()(torch.randn(shape))
    message = str(raised.value)
    assert '\n' not in message
    assert all(culprit in message for culprit in culprits), message


def test_a_batch_that_was_not_stacked_is_named(build_backbone):
    with pytest.raises(TypeError, match=r'list.*default_collate'):
        build_backbone()([torch.randn(3, 64, 64)] * 2)


@pytest.mark.parametrize('registers', [0, 3])
def test_another_serialization_is_a_permutation_of_the_sequence(build_backbone, registers):
    images = torch.randn(2, 3, 64, 48)
    row = build_backbone(out_type='featmap', num_registers=registers).eval()
    column = build_backbone(out_type='featmap', num_registers=registers, serialization='column').eval()
    column.load_state_dict(row.state_dict())
    # The patches of the one read by columns are those of the transposed grid read by rows.
    with torch.no_grad():
        embedded = row.patch_embed(images) + row.pos_embed((4, 3)).view(1, 4, 3, -1).permute(0, 3, 1, 2)
        transposed = embedded.transpose(2, 3).flatten(2).transpose(1, 2)
        if registers:
            order, positions, _ = register_order(12, registers)
            extra = (row.register_tokens + row.register_pos_embed).expand(2, -1, -1)
            expected = row.encoder(torch.cat([transposed, extra], 1)[:, order])[:, positions]
        else:
            expected = row.encoder(transposed)
        expected = expected.transpose(1, 2).unflatten(-1, (3, 4)).transpose(2, 3)
    torch.testing.assert_close(column(images)[0], expected)
    assert not torch.allclose(row(images)[0], expected, rtol=1e-3, atol=1e-3)


def test_regions_may_differ_from_the_serialization(build_backbone):
    tokens = build_backbone(regions='column').tokenize(torch.randn(IMAGES))
    assert tokens.order is None
    assert tokens.region_size is None
    assert tokens.region_ids.tolist() == [0, 1, 2, 3] * 4
    tokens = build_backbone(serialization=dict(type='block', size=2)).tokenize(torch.randn(IMAGES))
    assert tokens.order.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert tokens.region_ids[tokens.order].tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    with pytest.raises(ValueError, match="regions='diagonal'"):
        build_backbone(regions='diagonal')
