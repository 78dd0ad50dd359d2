"""Checkpoints into MAPHybrid: other grids fit, other architectures are refused by name."""

import copy

import pytest
import torch
from mmengine.runner import load_checkpoint

from mmmap.models.backbones import MAPHybrid
from mmmap.registry import MODELS


@pytest.mark.parametrize('size', [64, 128, (48, 112), (16, 32)])
def test_position_embedding_is_resized_on_loading(build_backbone, size):
    source, target = build_backbone(img_size=64), build_backbone(img_size=size)
    target.load_state_dict(source.state_dict(), strict=True)
    expected = source.pos_embed(target.grid_of(*target.img_size)).view_as(target.pos_embed.weight)
    torch.testing.assert_close(target.pos_embed.weight, expected)
    # Images of the size of either give the same features: both resize the same weights.
    images = torch.randn(1, 3, *target.img_size)
    torch.testing.assert_close(target.eval()(images), source.eval()(images))


def pretrained(cfg: dict, folder) -> str:
    """A checkpoint of a MAP model as mmengine writes it."""
    path = str(folder / 'pretrained.pth')
    torch.save(dict(meta={}, state_dict=MODELS.build(cfg).state_dict()), path)
    return path


def test_pretrained_backbone_starts_a_classifier(map_cfg, tmp_path):
    path = pretrained(map_cfg(), tmp_path)
    arch = map_cfg()['backbone']['arch']
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    model = MAPHybrid(arch=arch | dict(num_registers=3), img_size=(32, 96), init_cfg=init_cfg)
    registers = model.register_tokens.clone()
    model.init_weights()
    weights = torch.load(path)['state_dict']
    for name, value in model.named_parameters():
        if not name.startswith(('register_', 'pos_embed')):
            assert torch.equal(value, weights[f'backbone.{name}']), name
    assert torch.equal(model.register_tokens, registers)
    assert model.pos_embed.weight.shape == (1, 2, 6, 32)


WAYS = ('load_state_dict', 'load_checkpoint', 'Pretrained', 'whole model')


def load(way: str, path: str, arch: dict, cfg: dict) -> None:
    if way == 'Pretrained':
        init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
        MAPHybrid(arch=arch, img_size=64, out_type='raw', init_cfg=init_cfg).init_weights()
        return
    cfg = copy.deepcopy(cfg)
    cfg['backbone']['arch'] = arch
    cfg['neck']['in_dim'] = arch['embed_dim'] if isinstance(arch, dict) else 192
    model = MODELS.build(cfg)
    if way == 'load_checkpoint':
        load_checkpoint(model, path)
    elif way == 'whole model':
        model.init_cfg = dict(type='Pretrained', checkpoint=path)
        model.init_weights()
    else:
        model.load_state_dict(torch.load(path)['state_dict'], strict=False)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize(
    ('change', 'described'),
    [
        (dict(embed_dim=48), "custom (width 48, layout 'MMMT')"),
        (dict(layout='MMT'), "custom (width 32, layout 'MMT')"),
        (dict(layout='MMMTMMMT'), "custom (width 32, layout 'MMMT' * 2)"),
        (dict(layout='MMTM'), "custom (width 32, layout 'MMTM')"),
    ],
    ids=['width', 'fewer blocks', 'more blocks', 'other blocks'],
)
def test_another_arch_is_refused_by_name(map_cfg, tmp_path, way, change, described):
    cfg = map_cfg()
    path = pretrained(cfg, tmp_path)
    with pytest.raises(ValueError, match='another arch') as raised:
        load(way, path, cfg['backbone']['arch'] | change, cfg)
    message = str(raised.value)
    assert '\n' not in message
    assert "custom (width 32, layout 'MMMT')" in message
    assert described in message


@pytest.mark.parametrize('way', WAYS)
def test_the_same_arch_is_not_refused(map_cfg, tmp_path, way):
    cfg = map_cfg()
    load(way, pretrained(cfg, tmp_path), cfg['backbone']['arch'], cfg)


def test_a_named_arch_is_told_by_its_name(map_cfg):
    with torch.device('meta'):
        tiny, small = (MAPHybrid(arch=arch, out_type='raw') for arch in ('tiny', 'small'))
    with pytest.raises(ValueError, match=r'another arch, small \(width 384.*the model, tiny \(width 192'):
        tiny.load_state_dict(small.state_dict())


def test_parts_of_a_backbone_are_left_to_the_caller(build_backbone):
    source, target = build_backbone(), build_backbone(layout='MT')
    part = {name: value for name, value in source.state_dict().items() if name.startswith('encoder.blocks.0.')}
    assert target.load_state_dict(part, strict=False).unexpected_keys == []
    assert torch.equal(target.encoder.blocks[0].norm.weight, source.encoder.blocks[0].norm.weight)


def test_a_copy_checks_for_itself(build_backbone):
    twin = copy.deepcopy(build_backbone())
    twin.load_state_dict(build_backbone().state_dict())
    with pytest.raises(ValueError, match='another arch'):
        twin.load_state_dict(build_backbone(layout='MMM').state_dict())
