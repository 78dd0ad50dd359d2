"""The converter on classifiers: Mamba-R's, and what a MAP checkpoint holds of one."""

import sys

import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.models import ImageClassifier
from mmpretrain.structures import DataSample
from released_files import CLASSIFIER_KEYS, HEADS, classifier_weights, converter, part, released_weights

from mmmap.models import MAP
from mmmap.registry import MODELS

DECODER = ('decoder', 'ar_pred', 'mask_token')


def build(path: str) -> torch.nn.Module:
    """The model of a converted checkpoint."""
    checkpoint = torch.load(path, weights_only=True)
    model = MODELS.build(checkpoint['meta']['model_cfg'])
    model.load_state_dict(checkpoint['state_dict'], strict=True)
    return model.eval()


@pytest.mark.parametrize('reduction', [1, 2, 8])
def test_every_key_of_a_classifier_is_mapped_and_reported(files, capsys, reduction):
    weights = classifier_weights(reduction=reduction)
    files.write(dict(model=weights))
    names = converter.convert(files.src, files.dst)
    assert set(names) == set(weights)
    state_dict = torch.load(files.dst, weights_only=True)['state_dict']
    assert {name.split('[')[0] for name in names.values()} == set(state_dict)
    for theirs, ours in names.items():
        assert torch.equal(part(state_dict, ours).flatten(), weights[theirs].flatten()), theirs
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(weights) + 1
    assert f'{len(weights)} tensors mapped, 0 left out; classification' in lines[-1]


def test_names_of_registers_neck_and_head(files):
    files.write(dict(model=classifier_weights(reduction=2)))
    names = converter.convert(files.src, files.dst)
    assert {theirs: ours for theirs, ours in names.items() if not theirs.startswith(('layers.', 'norm_f', 'p'))} == {
        'cls_token': 'backbone.register_tokens',
        'neck.weight': 'neck.proj.weight',
        'norm_neck.weight': 'neck.norm.weight',
        'head.weight': 'head.fc.weight',
        'head.bias': 'head.fc.bias',
    }
    assert names['pos_embed_cls'] == 'backbone.register_pos_embed'


@pytest.mark.parametrize('scope', ['mmengine', 'mmpretrain', 'mmseg'])
def test_the_stored_config_rebuilds_the_classifier(files, scope):
    files.write(dict(model=classifier_weights(registers=3, reduction=4)))
    with DefaultScope.overwrite_default_scope(scope):
        converter.convert(files.src, files.dst)
        model = build(files.dst)
    assert isinstance(model, ImageClassifier)
    assert model.backbone.encoder.layout == 'M' * 7
    assert model.backbone.img_size == (48, 48)
    assert (model.backbone.out_type, model.backbone.num_registers) == ('registers', 3)
    assert model.neck.out_dim == model.head.in_channels == 12
    assert model.data_preprocessor.num_classes == model.head.num_classes == 10
    images = torch.randint(0, 255, (2, 3, 48, 48), dtype=torch.uint8)
    batch = dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in (1, 2)])
    batch = model.data_preprocessor(batch)
    # OpenCV's blue comes first and is normalised as the last channel.
    assert torch.allclose(batch['inputs'][:, 2], (images[:, 0] - 103.53) / 57.375, atol=1e-5)
    logits = model(batch['inputs'], mode='tensor')
    assert logits.shape == (2, 10)
    predicted = model(**batch, mode='predict')
    assert [sample.pred_label.item() for sample in predicted] == logits.argmax(1).tolist()
    assert model(**batch, mode='loss')['loss'].isfinite()


def test_the_task_of_a_checkpoint_that_holds_both(files, weights, capsys):
    files.write(dict(model=weights))
    kept = {}
    for task in (None, 'pretraining', 'classification'):
        names = converter.convert(files.src, files.dst, **HEADS, task=task)
        left_out = CLASSIFIER_KEYS if task != 'classification' else {k for k in weights if k.startswith(DECODER)}
        other = 'classification' if task != 'classification' else 'pretraining'
        assert set(names) == set(weights) - left_out
        lines = capsys.readouterr().out.splitlines()
        for key in left_out:
            assert f'{key}: left out, of use to {other} only' in lines
        kept[task] = build(files.dst)
    assert isinstance(kept[None], MAP)
    assert isinstance(kept['pretraining'], MAP)
    assert isinstance(kept['classification'], ImageClassifier)
    assert kept['classification'].backbone.encoder.layout == 'MMMTMMMTM'
    assert kept['classification'].backbone.encoder.blocks[3].attn.num_heads == 4
    assert kept['classification'](torch.randn(2, 3, 48, 48), mode='tensor').shape == (2, 10)
    assert torch.equal(kept[None].backbone.pos_embed.weight, kept['classification'].backbone.pos_embed.weight)


def test_a_classifier_with_transformer_blocks_is_recognised(files):
    files.write(classifier_weights(blocks=1, reduction=2))
    converter.convert(files.src, files.dst, num_heads=4)
    model = build(files.dst)
    assert isinstance(model, ImageClassifier)
    assert model.backbone.encoder.layout == 'MMMTMMMM'


def test_moving_average_of_a_classifier(files):
    weights = classifier_weights()
    files.write(dict(model=weights, model_ema={name: value + 1 for name, value in weights.items()}))
    converter.convert(files.src, files.dst, ema=True)
    assert torch.equal(build(files.dst).head.fc.bias, weights['head.bias'] + 1)


@pytest.mark.parametrize(('registers', 'named'), [(12, True), (3, False), (16, False)])
def test_a_named_arch_has_its_number_of_registers(registers, named):
    # Shapes are all that counts, and these take no memory.
    with torch.device('meta'):
        weights = classifier_weights(registers, width=192, layers=24, blocks=8, grid=14, states=16)
    cfg = converter.infer_model_cfg(weights)
    assert cfg['backbone']['num_registers'] == registers
    if named:
        assert cfg['backbone']['arch'] == 'tiny'
    else:
        assert cfg['backbone']['arch']['layout'] == 'MMMT' * 8
        assert MODELS.build(cfg).backbone.num_registers == registers


def test_released_mamba_r_is_no_named_arch():
    with torch.device('meta'):
        weights = classifier_weights(12, width=192, layers=24, grid=14, states=16)
    arch = converter.infer_model_cfg(weights)['backbone']['arch']
    assert (arch['embed_dim'], arch['layout']) == (192, 'M' * 24)


# Refused


@pytest.mark.parametrize('missing', [['head.weight', 'head.bias'], ['cls_token'], ['cls_token', 'head.weight']])
@pytest.mark.parametrize('both', [True, False])
def test_no_classifier_without_head_or_registers(files, weights, missing, both):
    weights = weights if both else classifier_weights()
    for key in missing:
        del weights[key]
    files.write(dict(model=weights))
    message = files.refused('not a classifier with registers and a head', task='classification')
    assert all(key in message for key in missing if key != 'head.bias')
    assert 'decoder' not in message


def test_no_pretraining_without_a_decoder(files):
    files.write(dict(model=classifier_weights()))
    assert 'decoder_embed.weight' in files.refused('not a MAP pretraining checkpoint', task='pretraining')


def test_a_checkpoint_of_neither_task_is_told_so(files):
    encoder = {k: v for k, v in released_weights().items() if k not in CLASSIFIER_KEYS and not k.startswith(DECODER)}
    files.write(dict(model=encoder))
    message = files.refused('not a MAP pretraining checkpoint.* and not a classifier either')
    assert all(culprit in message for culprit in ('decoder_', 'cls_token'))


def test_an_unknown_task_is_named(files, weights):
    files.write(dict(model=weights))
    files.refused("task='detection': must be one of .*pretraining.*classification", task='detection')


@pytest.mark.parametrize('task', ['pretraining', 'classification'])
def test_keys_unknown_to_both_tasks_are_named(files, weights, task):
    files.write(dict(model=weights | {'head.scale': torch.zeros(1), 'decoder_gate': torch.zeros(1)}))
    assert 'head.scale, decoder_gate' in files.refused('2 key', task=task)


@pytest.mark.parametrize(
    'key', ['pos_embed_cls', 'head.bias', 'neck.weight', 'norm_neck.weight', 'norm_f.weight', 'layers.3.mixer.D_b']
)
def test_a_missing_key_of_a_classifier_is_named(files, key):
    complete = classifier_weights(reduction=2)
    files.write(dict(model={name: value for name, value in complete.items() if name != key}))
    message = files.refused()
    assert key in message or converter.convert_state_dict(complete)[1][key] in message


@pytest.mark.parametrize(
    ('key', 'shape', 'culprits'),
    [
        ('cls_token', (2, 16), ['cls_token', '(2, 16)']),
        ('cls_token', (1, 0, 16), ['cls_token', '(1, 0, 16)']),
        ('cls_token', (1, 2, 12), ['register_tokens', '(1, 2, 12)']),
        ('pos_embed_cls', (1, 3, 16), ['register_pos_embed', '(1, 3, 16)']),
        ('head.weight', (10, 20), ['head.fc.weight', '(10, 20) instead of (10, 16)']),
        ('head.weight', (0, 16), ['head.weight', '(0, 16)']),
        ('head.bias', (9,), ['head.fc.bias', '(9,)']),
        ('neck.weight', (6, 16), ['neck.weight', '6', '16']),
        ('neck.weight', (8, 12), ['neck.proj.weight', '(8, 12)']),
        ('neck.weight', (16, 16), ['neck.proj.weight']),
        ('neck.weight', (8,), ['neck.weight', '(8,)']),
        ('norm_neck.weight', (12,), ['neck.norm.weight', '(12,)']),
    ],
)
def test_shapes_of_a_classifier_that_do_not_agree_are_named(files, key, shape, culprits):
    files.write(dict(model=classifier_weights(reduction=2) | {key: torch.zeros(shape)}))
    message = files.refused()
    assert all(culprit in message for culprit in culprits), message


# Command line


def test_the_task_on_the_command_line(files, weights, monkeypatch, capsys):
    files.write(dict(model=weights))
    monkeypatch.setattr(sys, 'argv', ['x', files.src, files.dst, '--task', 'classification', '--num-heads', '4'])
    assert converter.main() == 0
    assert isinstance(build(files.dst), ImageClassifier)
    del weights['head.weight']
    files.write(dict(model=weights))
    assert converter.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'error: {files.src}: not a classifier with registers and a head: it has no head.weight'
