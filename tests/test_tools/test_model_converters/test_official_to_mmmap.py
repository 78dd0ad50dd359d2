"""The converter: what it maps, what it refuses, and that it runs nothing of a file."""

import argparse
import os
import pathlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from released_files import CLASSIFIER_KEYS, HEADS, ROOT, SCRIPT, converter, part, released_weights

import mmmap
from mmmap.registry import MODELS


def test_every_key_is_mapped_and_reported(files, weights, capsys):
    files.write(dict(model=weights))
    names = converter.convert(files.src, files.dst, **HEADS)
    assert set(names) == set(weights) - CLASSIFIER_KEYS
    checkpoint = torch.load(files.dst, weights_only=True)
    assert len(set(names.values())) == len(names)
    assert {name.split('[')[0] for name in names.values()} == set(checkpoint['state_dict'])
    for theirs, ours in names.items():
        assert torch.equal(part(checkpoint['state_dict'], ours).flatten(), weights[theirs].flatten()), theirs
    lines = capsys.readouterr().out.splitlines()
    for theirs, ours in names.items():
        assert sum(line.startswith(f'{theirs} -> {ours} (') for line in lines) == 1
    for theirs in CLASSIFIER_KEYS:
        assert sum(line.startswith(f'{theirs}: left out') for line in lines) == 1
    assert f'{len(names)} tensors mapped, 4 left out' in lines[-1]
    assert len(lines) == len(weights) + 1


def test_the_stored_config_rebuilds_the_model(files, weights):
    files.write(dict(model=weights))
    converter.convert(files.src, files.dst, **HEADS)
    meta = torch.load(files.dst, weights_only=True)['meta']
    model = MODELS.build(meta['model_cfg'])
    model.load_state_dict(torch.load(files.dst)['state_dict'], strict=True)
    load_checkpoint(model, files.dst, strict=True)
    assert model.backbone.encoder.layout == 'MMMTMMMTM'
    assert model.backbone.img_size == (48, 48)
    assert model.backbone.encoder.blocks[3].attn.num_heads == 4
    assert model.neck.blocks[0].attn.num_heads == 4
    assert model.neck.attention == 'region_causal'
    assert (model.masking.low, model.masking.high) == (0.3, 0.7)
    assert model.reconstruct(torch.randn(2, 3, 48, 48)).loss().isfinite()
    assert meta['mmmap_version'] == mmmap.__version__
    assert meta['converted_from'] == 'released.pth'
    assert meta['ema'] is False


def test_a_named_arch_is_found_by_its_shapes():
    weights = released_weights(192, 24, 8, 14, 192, 4, states=16)
    cfg = converter.infer_model_cfg(weights)
    assert cfg['backbone']['arch'] == 'tiny'
    assert cfg['neck']['num_heads'] == 16
    # 24 + 8 blocks and what surrounds them: as many tensors as the released tiny model has.
    assert len(weights) == 584
    assert converter.infer_model_cfg(weights, num_heads=6)['backbone']['arch']['num_heads'] == 6


def test_heads_default_to_the_released_numbers():
    for width, heads in ((48, 12), (1024, 16)):
        weights = released_weights(width, layers=3, blocks=1)
        assert converter.infer_model_cfg(weights)['backbone']['arch']['num_heads'] == heads


def test_moving_average(files, weights):
    average = {name: value + 1 for name, value in weights.items()}
    files.write(dict(model=weights, model_ema=average))
    for ema, source in ((False, weights), (True, average)):
        names = converter.convert(files.src, files.dst, ema=ema, **HEADS)
        checkpoint = torch.load(files.dst)
        assert torch.equal(checkpoint['state_dict'][names['norm_f.weight']], source['norm_f.weight'])
        assert checkpoint['meta']['ema'] is ema


def test_no_moving_average_is_named(files, weights):
    files.write(dict(model=weights, epoch=3))
    message = files.refused('model_ema', ema=True)
    assert 'epoch' in message


@pytest.mark.parametrize('form', ['bare', 'module prefix', 'training', 'legacy', 'half'])
def test_forms_of_checkpoint(files, weights, form):
    content, options = weights, {}
    if form == 'module prefix':
        content = dict(model={f'module.{name}': value for name, value in weights.items()})
    elif form == 'training':
        content = dict(
            model=weights,
            optimizer=dict(state={0: dict(step=torch.tensor(2.0))}, param_groups=[dict(lr=np.float64(1e-3))]),
            lr_scheduler=dict(base_values=np.ones(2), last=np.float32(3), count=np.int64(4), on=np.bool_(True)),
            scaler=dict(scale=65536.0),
            args=argparse.Namespace(lr=5e-4, data=pathlib.PurePosixPath('imagenet'), output_dir=Path('out')),
            epoch=1599,
        )
    elif form == 'legacy':
        options = dict(_use_new_zipfile_serialization=False)
    elif form == 'half':
        content = dict(model={name: value.half() for name, value in weights.items()})
    torch.save(content, files.src, **options)
    names = converter.convert(files.src, files.dst, **HEADS)
    state_dict = torch.load(files.dst)['state_dict']
    for theirs, ours in names.items():
        torch.testing.assert_close(
            part(state_dict, ours).flatten().float(), weights[theirs].flatten(), rtol=1e-3, atol=1e-3, msg=theirs
        )


# Refused


def test_unknown_keys_are_all_named(files, weights):
    files.write(dict(model=weights | {'blocks.0.gate': torch.zeros(1), 'extra.weight': torch.zeros(1)}))
    message = files.refused('2 key')
    assert 'blocks.0.gate, extra.weight' in message


# One of every kind that occurs, those from which the architecture is inferred included.
@pytest.mark.parametrize('key', sorted(set(released_weights(layers=3, blocks=1, decoder_depth=1)) - CLASSIFIER_KEYS))
def test_a_missing_key_is_named(files, weights, key):
    del weights[key]
    files.write(dict(model=weights))
    message = files.refused()
    ours = converter.convert_state_dict(released_weights())[1][key]
    assert key in message or ours in message


@pytest.mark.parametrize('key', ['layers.2.', 'blocks.0.', 'decoder_blocks.0.'])
def test_a_missing_block_is_named(files, weights, key):
    files.write(dict(model={name: value for name, value in weights.items() if not name.startswith(key)}))
    assert key.split('.')[0] in files.refused()


def test_more_transformer_blocks_than_places_are_named(files):
    files.write(dict(model=released_weights(layers=4, blocks=2)))
    files.refused('2 Transformer blocks behind 4 Mamba layers')


@pytest.mark.parametrize(
    ('key', 'shape', 'culprits'),
    [
        ('pos_embed', (1, 10, 16), ['pos_embed', '10']),
        ('pos_embed', (9, 16), ['pos_embed', '(9, 16)']),
        ('pos_embed', (1, 9, 12), ['pos_embed', '12']),
        ('patch_embed.proj.weight', (16, 768), ['patch_embed.proj.weight', '(16, 768)']),
        ('patch_embed.proj.weight', (16, 3, 16, 8), ['patch_embed.weight', '(16, 3, 16, 8)']),
        ('patch_embed.proj.weight', (0, 3, 16, 16), ['patch_embed.proj.weight', '(0, 3, 16, 16)']),
        ('layers.0.mixer.A_log', (32,), ['layers.0.mixer.A_log', '(32,)']),
        ('layers.0.mixer.A_log', (40, 4), ['A_log', '(40, 4)']),
        ('layers.5.mixer.A_log', (32, 5), ['blocks.6.mixer.A_log', '(32, 5)']),
        ('layers.1.mixer.conv1d.weight', (32, 2, 4), ['blocks.1.mixer.conv_weight', '(32, 2, 4)']),
        ('decoder_embed.weight', (8, 12), ['neck.embed.weight', '(8, 12)']),
        ('blocks.1.mlp.fc2.weight', (16, 16), ['blocks.7.mlp.fc2.weight', '(16, 16)']),
        ('ar_pred.weight', (192, 8), ['head.proj.weight', '(192, 8)']),
    ],
)
def test_shapes_that_do_not_agree_are_named(files, weights, key, shape, culprits):
    weights[key] = torch.zeros(shape)
    files.write(dict(model=weights))
    message = files.refused()
    assert all(culprit in message for culprit in culprits), message


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(num_heads=3), 'num_heads=3'),
        (dict(num_heads=0), 'num_heads=0'),
        (dict(decoder_num_heads=5), 'num_heads=5'),
        (dict(decoder_num_heads=0), 'num_heads=0'),
        (dict(num_heads=None), 'num_heads=12 does not divide the width embed_dim=16'),
    ],
)
def test_wrong_head_counts_are_named(files, weights, options, culprit):
    files.write(dict(model=weights))
    files.refused(culprit, **options)


@pytest.mark.parametrize(
    ('content', 'culprit'),
    [
        ([1, 2], 'holds a list'),
        (dict(model=3), "no dict 'model'"),
        (dict(state_dict=dict(a=torch.zeros(1))), 'state_dict'),
        ({}, 'not a state dict'),
        (dict(model={}), 'not a state dict'),
        (dict(a=torch.zeros(2)), 'not a MAP pretraining checkpoint.* and not a classifier either'),
    ],
)
def test_other_contents_are_refused(files, content, culprit):
    files.write(content)
    files.refused(culprit)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_file_is_run(files, weights, tmp_path):
    trap = tmp_path / 'sprung'
    files.write(dict(model=weights, args=Malicious(trap)))
    message = files.refused('posix.mkdir')
    assert not trap.exists()
    assert 'weights_only' not in message  # No advice to load it after all.
    torch.load(files.src, weights_only=False)
    assert trap.exists()  # The trap does work.


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('share', [0, 0.1, 0.5, 0.98])
def test_a_file_that_was_cut_off_is_refused(files, weights, share, legacy):
    torch.save(dict(model=weights), files.src, _use_new_zipfile_serialization=not legacy)
    content = Path(files.src).read_bytes()
    Path(files.src).write_bytes(content[: int(len(content) * share)])
    files.refused('is cut off|is empty|cannot be loaded')


@pytest.mark.parametrize(
    'content', [b'<html>not found</html>', b'\x80\x02}q\x00.', b'PK\x03\x04' + bytes(40), bytes(100)]
)
def test_a_file_of_another_kind_is_refused(files, content):
    Path(files.src).write_bytes(content)
    files.refused()


def test_a_missing_file_or_a_folder_is_refused(files):
    files.refused('no such file')
    os.mkdir(files.src)
    files.refused('a folder')


@pytest.mark.parametrize('existing', [False, True])
def test_output_is_whole_or_not_there(files, weights, monkeypatch, existing):
    files.write(dict(model=weights))
    target = Path(files.dst)
    if existing:
        target.parent.mkdir()
        target.write_bytes(b'precious')

    def disk_full(_obj, path):
        Path(path).write_bytes(b'half of it')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(torch, 'save', disk_full)
    with pytest.raises(OSError, match='No space left'):
        converter.convert(files.src, files.dst, **HEADS)
    assert [path.name for path in target.parent.iterdir()] == (['ours.pth'] if existing else [])
    assert not existing or target.read_bytes() == b'precious'


# Command line


def test_command_line(files, weights, tmp_path):
    files.write(dict(model=weights, model_ema={name: value + 1 for name, value in weights.items()}))
    command = [sys.executable, '-W', 'ignore', str(SCRIPT), files.src, files.dst, '--ema']
    command += ['--num-heads', '4', '--decoder-num-heads', '4']
    env = os.environ | dict(PYTHONPATH=str(ROOT))  # The package need not be installed.
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 'norm_f.weight -> backbone.encoder.norm.weight (16,)' in done.stdout
    state_dict = torch.load(files.dst)['state_dict']
    assert torch.equal(state_dict['backbone.encoder.norm.weight'], weights['norm_f.weight'] + 1)


@pytest.mark.parametrize('mistake', ['missing file', 'heads', 'destination'])
def test_the_command_line_tells_errors_in_one_line(files, weights, monkeypatch, capsys, tmp_path, mistake):
    destination = files.dst
    if mistake != 'missing file':
        files.write(dict(model=weights))
    if mistake == 'destination':
        (tmp_path / 'file').touch()
        destination = str(tmp_path / 'file' / 'ours.pth')
    heads = '3' if mistake == 'heads' else '4'
    monkeypatch.setattr(sys, 'argv', ['x', files.src, destination, '--num-heads', heads, '--decoder-num-heads', '4'])
    assert converter.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert {'missing file': files.src, 'heads': 'num_heads=3', 'destination': str(tmp_path / 'file')}[mistake] in line
