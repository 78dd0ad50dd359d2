"""The tool that counts; what it counts is tested with mmmap.analysis."""

import json
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_pretraining_config(run_tool, tiny_map, tmp_path, capsys):
    run_tool(
        'analysis_tools/get_flops.py', tiny_map, '--shape', 32, 64, '--batch', 2, '--json', tmp_path / 'out/f.json'
    )
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / 'out/f.json').read_text())
    assert report['shape'] == [32, 64] and report['batch'] == 2
    assert report['flops'] == sum(part['flops'] for part in report['parts'].values())
    # Two images of 4 x 8 patches of 8 pixels.
    assert report['parts']['embedding']['flops'] == 2 * 32 * 2 * 3 * 64 * 16
    assert f'{report["parameters"]:,}' in printed and 'Mamba: scan' in printed


def test_classifier(run_tool, tiny_classifier, capsys):
    run_tool('analysis_tools/get_flops.py', tiny_classifier)
    printed = capsys.readouterr().out
    assert 'decoder' not in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith('head')] == ['34']


def test_a_model_that_looks_at_values_is_computed(run_tool, tmp_path, capsys):
    config = next((ROOT / 'configs/map/mini').glob('mocov3_*.py'))
    run_tool('analysis_tools/get_flops.py', config, '--json', tmp_path / 'two.json')
    assert 'is computed on the CPU' in capsys.readouterr().out
    run_tool('analysis_tools/get_flops.py', next(config.parent.glob('simmim_*.py')), '--json', tmp_path / 'one.json')
    two, one = (json.loads((tmp_path / name).read_text())['parts']['Mamba: scan'] for name in ('two.json', 'one.json'))
    # Two views through two encoders.
    assert two['flops'] == 4 * one['flops'] and two['parameters'] == 2 * one['parameters']


def test_the_largest_model_takes_seconds(run_tool, capsys):
    started = time.monotonic()
    config = next((ROOT / 'configs/map').glob('map_hybrid-huge-p16_16xb128-amp-*.py'))
    run_tool('analysis_tools/get_flops.py', config)
    assert time.monotonic() - started < 30  # To compute it would take a minute and 3 GB.
    total = next(line for line in capsys.readouterr().out.splitlines() if line.startswith('all'))
    parameters = int(total.split()[1].replace(',', ''))
    assert 750e6 < parameters < 850e6


def test_mistakes_end_in_one_line(run_tool, tiny_map, capsys):
    for arguments, message in [
        (['no.py'], 'error: config file not found: no.py'),
        ([tiny_map, '--shape', 30, 32], 'error: ValueError: an image of 30x32 pixels is not divisible by patch_size=8'),
    ]:
        with pytest.raises(SystemExit):
            run_tool('analysis_tools/get_flops.py', *arguments)
        assert capsys.readouterr().err.splitlines()[-1].startswith(message)
