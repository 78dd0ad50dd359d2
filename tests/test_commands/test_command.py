"""The command ``mmmap``: what is said of wrong options, and with which exit status it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmmap.commands import COMMANDS, main

ROOT = Path(__file__).parents[2]
CLASSIFIER = 'mmpretrain::resnet/resnet18_8xb16_cifar10.py'


@pytest.fixture
def backbone(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(
        "model = dict(type='MAP', backbone=dict(type='MAPHybrid', patch_size=4, "
        "arch=dict(embed_dim=16, layout='MT', num_heads=2)))\n"
    )
    return str(path)


def end(capsys, *arguments):
    """The exit status of a call that ends the program, and the last line it prints."""
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, arguments)))
    return stop.value.code, capsys.readouterr().err.strip().splitlines()[-1]


def test_an_unknown_command(capsys):
    status, line = end(capsys, 'adpat')
    assert status == 2
    assert all(name in line for name in COMMANDS)


def test_no_command(capsys):
    assert end(capsys)[0] == 2


@pytest.mark.parametrize('command', COMMANDS)
def test_each_command_tells_its_options(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, '--help'])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: mmmap {command}')


@pytest.mark.parametrize(
    'arguments, words',
    [
        (
            ['mmpretrain::resnet/resnet18_8xb61_cifar10.py', '--arch', 'tiny'],
            'near are mmpretrain::resnet/resnet18_8xb16',
        ),
        (['missing.py', '--arch', 'tiny'], 'config file not found: missing.py'),
        ([CLASSIFIER], 'no backbone: give --arch'),
        ([CLASSIFIER, '--arch', 'tinny'], '--arch tinny is unknown'),
        ([CLASSIFIER, '--arch', 'tiny', '--pretrained', 'missing.pth'], 'checkpoint not found: missing.pth'),
        ([CLASSIFIER, '--backbone', 'missing.py'], 'config file not found: missing.py'),
    ],
)
def test_wrong_options(capsys, tmp_path, arguments, words):
    out = tmp_path / 'child.py'
    status, line = end(capsys, 'adapt', *arguments, '-o', out)
    assert status == 1
    assert line.startswith('error: ')
    assert words in line
    assert not out.exists()


def test_an_output_that_is_no_config(capsys, tmp_path):
    assert end(capsys, 'adapt', CLASSIFIER, '--arch', 'tiny', '-o', tmp_path / 'child')[0] == 1


def test_a_config_is_written_once(capsys, tmp_path, backbone):
    out = tmp_path / 'new' / 'child.py'
    main(['adapt', CLASSIFIER, '--backbone', backbone, '-o', str(out)])
    assert capsys.readouterr().out.startswith(f'{out} is written')
    text = out.read_text()
    assert text.startswith(f'# From `mmmap adapt {CLASSIFIER} --backbone {backbone}`.\n_base_ = {CLASSIFIER!r}\n')
    status, line = end(capsys, 'adapt', CLASSIFIER, '--backbone', backbone, '-o', out)
    assert (status, line) == (1, f'error: {out} exists: choose another --out, or replace it with --overwrite')
    # Nor the config that is inherited from.
    status, line = end(capsys, 'adapt', out, '--backbone', backbone, '-o', out, '--overwrite')
    assert (status, 'is the config itself' in line) == (1, True)
    assert out.read_text() == text
    out.write_text('# old\n')
    main(['adapt', CLASSIFIER, '--backbone', backbone, '-o', str(out), '--overwrite'])
    assert out.read_text() == text


def test_the_package_is_the_command():
    result = subprocess.run([sys.executable, '-m', 'mmmap', '--help'], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0
    assert result.stdout.startswith('usage: mmmap ')
