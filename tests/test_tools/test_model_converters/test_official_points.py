"""The converter on released checkpoints of PointMAP; that they give the released numbers is tested with the models."""

import sys

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from released_files import converter, part, released_weights

from mmmap.models import MAP
from mmmap.registry import MODELS
from mmmap.released.point_checkpoint import infer_point_model_cfg

CLASS_TOKEN = {'MAE_encoder.cls_token', 'MAE_encoder.cls_pos'}
STATE = dict(weight=(256,), bias=(256,), running_mean=(256,), running_var=(256,), num_batches_tracked=())
HEAD = {f'cls_head_finetune.{i}.{name}': shape for i in (1, 5) for name, shape in STATE.items()}
for _i, _shape in ((0, (256, 96)), (4, (256, 256)), (8, (7, 256))):
    HEAD |= {f'cls_head_finetune.{_i}.weight': _shape, f'cls_head_finetune.{_i}.bias': _shape[:1]}


@pytest.fixture
def pretrained(data_dir) -> dict:
    """Weights of width 48, three Mamba blocks and one Transformer block, with groups of 8 points."""
    stored = np.load(data_dir / 'pm_a_d48x3_g16x8.npz')
    return {key[3:]: torch.tensor(stored[key]) for key in stored.files if key.startswith('sd/')}


@pytest.fixture
def classifier(pretrained) -> dict:
    """The same encoder with a head for seven classes."""
    encoder = {key: value for key, value in pretrained.items() if key.startswith('MAE_encoder.')}
    head = {key: torch.rand(shape) if shape else torch.tensor(3) for key, shape in HEAD.items()}
    return {key.removeprefix('MAE_encoder.'): value for key, value in encoder.items()} | head


def build(path: str) -> torch.nn.Module:
    """The model of a converted checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    model = MODELS.build(checkpoint['meta']['model_cfg'])
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    return model.eval()


@pytest.mark.parametrize('kind', ['pretrained', 'classifier'])
def test_every_key_is_mapped_and_reported(files, request, capsys, kind):
    weights = request.getfixturevalue(kind)
    files.write(dict(base_model={f'module.{key}': value for key, value in weights.items()}, epoch=3))
    names = converter.convert(files.src, files.dst)
    left_out = CLASS_TOKEN if kind == 'pretrained' else set()
    assert set(names) == set(weights) - left_out
    state_dict = torch.load(files.dst, weights_only=True)['state_dict']
    for theirs, ours in names.items():
        # The embedding's layer that takes group and point is two of ours.
        if 'second_conv.0.weight' not in theirs:
            assert torch.equal(part(state_dict, ours).flatten(), weights[theirs].flatten()), theirs
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(weights) + 1
    assert all(f'{key}: left out, of use to classification only' in lines for key in left_out)
    assert f'{len(names)} tensors mapped, {len(left_out)} left out' in lines[-1]


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
def test_the_stored_config_rebuilds_a_pretrained_model(files, pretrained, scope):
    files.write(pretrained)
    with DefaultScope.overwrite_default_scope(scope):
        converter.convert(files.src, files.dst, bimamba_type='v2', num_groups=16, local_neighbours=8, loss='cdl1')
        model = build(files.dst)
    assert isinstance(model, MAP)
    backbone = model.backbone
    assert (backbone.released, backbone.tokenizer.num_groups, backbone.tokenizer.group_size) == ('v2', 16, 8)
    assert (backbone.encoder.layout, backbone.encoder.local_neighbours) == ('MMMT', 8)
    assert [block.attn.num_heads for block in model.neck.blocks] == [6] * 4
    assert model.head.loss_type == 'l1'
    batch = model.data_preprocessor(dict(inputs=[torch.randn(64, 3) for _ in range(2)]))
    assert model(**batch, mode='loss')['loss'].isfinite()


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
def test_the_stored_config_rebuilds_a_classifier(files, classifier, scope):
    files.write(classifier)
    with DefaultScope.overwrite_default_scope(scope):
        converter.convert(files.src, files.dst, group_size=16)
        model = build(files.dst)
    assert isinstance(model, ImageClassifier)
    backbone = model.backbone
    assert (backbone.released, backbone.tokenizer.num_groups, backbone.tokenizer.group_size) == ('v4', 64, 16)
    assert backbone.encoder.local_neighbours == 4
    assert model(torch.randn(2, 100, 3), mode='tensor').shape == (2, 7)


def test_the_released_size_has_a_name(pretrained):
    wide = {}
    for key, value in pretrained.items():
        names = key.split('.')
        copies = range(dict(blocks=12, blocks_vit=4)[names[2]]) if key.startswith('MAE_encoder.blocks.') else [None]
        for i in copies:
            wide['.'.join(names if i is None else [*names[:3], str(i), *names[4:]])] = value
    # Only shapes count: eight times as wide.
    with torch.device('meta'):
        wide = {key: torch.empty([8 * n if n in (48, 96, 192) else n for n in v.shape]) for key, v in wide.items()}
    wide['increase_dim.0.weight'] = torch.empty(96, 384, 1, device='meta')
    cfg = infer_point_model_cfg(wide)
    assert cfg['backbone']['arch'] == 'small'
    assert (cfg['backbone']['group_size'], cfg['head']['in_dim'], cfg['neck']['mlp_ratio']) == (32, 384, 4)


# Refused


def test_options_that_do_not_fit_are_named(files, pretrained, classifier):
    heads = dict(num_heads=None, decoder_num_heads=None)
    files.write(pretrained)
    files.refused('increase_dim.0.weight: 24 outputs are not 3 for each of 32 points', group_size=32, **heads)
    files.refused('num_groups=20: not a square', num_groups=20, **heads)
    files.refused("loss='l2'", loss='l2', **heads)
    files.refused("released='v3'", bimamba_type='v3', **heads)
    files.refused("task='classification': a PointMAP checkpoint of pretraining", task='classification', **heads)
    files.refused('num_heads=5', num_heads=5)
    files.write(classifier)
    files.refused("task='pretraining': a PointMAP checkpoint of classification", task='pretraining', **heads)
    files.write(released_weights())
    files.refused('num_groups, loss: only of use to a PointMAP checkpoint', num_groups=64, loss='cdl1')


@pytest.mark.parametrize(
    'key', ['MAE_encoder.gate', 'MAE_encoder.blocks.blocks.0.mixer.gate', 'increase_dim.1.weight', 'cls_head.weight']
)
def test_an_unknown_key_is_named(files, pretrained, key):
    files.write(pretrained | {key: torch.zeros(1)})
    assert key in files.refused('1 key', num_heads=None, decoder_num_heads=None)


@pytest.mark.parametrize(
    ('missing', 'culprit'),
    [
        ('mask_token', 'neck.mask_token'),
        ('MAE_encoder.encoder.first_conv.0.weight', 'MAE_encoder.encoder.first_conv.0.weight'),
        ('MAE_encoder.encoder.first_conv.1.running_var', 'backbone.tokenizer.norm1.running_var'),
        ('MAE_encoder.blocks.blocks.0.mixer.A_log', 'MAE_encoder.blocks.blocks.0.mixer.A_log'),
        ('MAE_encoder.blocks.blocks.1.mixer.D_b', 'backbone.encoder.blocks.1.mixer.D[1] missing'),
        ('MAE_encoder.blocks.blocks_vit.0.mixer.mlp.fc1.weight', 'blocks_vit.0.mixer.mlp.fc1.weight'),
        ('MAE_encoder.blocks.blocks.1.', 'MAE_encoder.blocks.blocks.*: indices [0, 2]'),
        ('MAE_encoder.blocks.blocks.2.', '1 Transformer blocks behind 2 Mamba layers'),
        ('MAE_decoder.blocks.2.', 'MAE_decoder.blocks.*: indices [0, 1, 3]'),
        ('MAE_decoder.', 'MAE_decoder.blocks.0.mlp.fc1.weight'),
        ('increase_dim.', 'increase_dim.0.weight'),
    ],
)
def test_a_missing_part_is_named(files, pretrained, missing, culprit):
    files.write({key: value for key, value in pretrained.items() if not key.startswith(missing)})
    assert culprit in files.refused(num_heads=None, decoder_num_heads=None)


def test_a_classifier_without_its_head_is_named(files, classifier):
    files.write({key: value for key, value in classifier.items() if not key.startswith('cls_head')})
    message = files.refused('not a PointMAP classifier', num_heads=None, decoder_num_heads=None)
    assert 'cls_head_finetune.8.weight' in message


def test_shapes_that_do_not_agree_are_named(files, pretrained):
    for key, shape, culprit in (
        ('MAE_encoder.blocks.blocks.0.mixer.A_log', (96,), r'A_log \(96,\)'),
        ('MAE_encoder.norm.weight', (40,), r'encoder.norm.weight \(40,\) instead of \(48,\)'),
        ('increase_dim.0.weight', (25, 48, 1), '25 outputs'),
    ):
        files.write(pretrained | {key: torch.zeros(shape)})
        files.refused(culprit, num_heads=None, decoder_num_heads=None)


def test_command_line(files, pretrained, monkeypatch, capsys):
    files.write(dict(base_model=pretrained))
    monkeypatch.setattr(
        sys, 'argv', ['x', files.src, files.dst, '--num-groups', '25', '--bimamba-type', 'v2', '--loss', 'cdl1']
    )
    assert converter.main() == 0
    model = build(files.dst)
    assert (model.backbone.released, model.backbone.tokenizer.num_groups, model.head.loss_type) == ('v2', 25, 'l1')
    monkeypatch.setattr(sys, 'argv', ['x', files.src, files.dst, '--group-size', '9'])
    assert converter.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ') and 'increase_dim.0.weight' in line
