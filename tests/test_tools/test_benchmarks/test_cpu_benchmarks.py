"""The benchmarks of scan, points, mixer and step: that they run, agree with themselves, and write what they print."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmmap.ops import available_backends

native = pytest.mark.skipif(available_backends()['native'] is not None, reason=str(available_backends()['native']))
TINY = Path(__file__).parents[1] / 'tiny_map.py'


@pytest.fixture
def run(run_tool, tmp_path, capsys):
    """A function that runs a benchmark and returns what it printed and what it wrote."""

    def run(name: str, *arguments: object) -> tuple[str, dict]:
        files = ['--json', tmp_path / 'figures' / 'x.json', '--plot', tmp_path / 'figures' / 'x.png']
        run_tool(f'benchmarks/benchmark_{name}.py', *arguments, '--threads', 1, *files)
        assert Image.open(files[3]).width > 500
        return capsys.readouterr().out, json.loads(files[1].read_text())

    return run


@native
def test_scan(run, monkeypatch):
    monkeypatch.setattr('mmmap.utils.benchmark.time_in_turns', lambda calls, *_, **__: {k: [1e-3] for k in calls})
    # A process for each candidate, with what a large scan takes.
    finished = subprocess.CompletedProcess([], 0, stdout=f'{2**26}\n')
    monkeypatch.setattr(subprocess, 'run', lambda *_, **__: finished)
    printed, report = run('scan', '--repeats', 1)
    assert [row['shape'][2] for row in report['times']] == [98, 196, 1024, 98]
    assert all(row['ms']['native'] == row['ms']['reference'] == 1 for row in report['times'])
    assert '1.00 (1.0x)' in printed
    assert {row['name'] for row in report['memory']} >= {'native', 'torch', 'reference'}
    assert 'native:     64.0 = results' in printed


TINY_CLOUDS = ('--batch-size', 2, '--points', 300, '--samples', 130, '--neighbours', 4)


@native
def test_points(run, monkeypatch):
    monkeypatch.setattr('mmmap.utils.benchmark.time_in_turns', lambda calls, *_, **__: {k: [1e-3] for k in calls})
    printed, report = run('points', *TINY_CLOUDS)
    sampling, nearest, *others = report['times']
    assert sampling == {
        'operator': 'farthest point sampling, 300 to 130',
        'ms': dict.fromkeys(('native', 'torch', 'loop'), 1),
    }
    assert set(nearest['ms']) == {'native', 'torch', 'loop', 'cdist'}
    assert len(others) == 3 and all(set(row['ms']) == {'native', 'torch', 'cdist'} for row in others)
    assert '4 nearest of 300, 130 queries       1.00 (1.0x)' in printed


def test_points_that_differ_are_not_timed(run, monkeypatch, capsys):
    cdist = torch.cdist
    monkeypatch.setattr('torch.cdist', lambda a, b: 1.01 * cdist(a, b))
    with pytest.raises(SystemExit, match='1'):
        run('points', *TINY_CLOUDS)
    assert '4 nearest of 300, 130 queries: cdist and native' in capsys.readouterr().err


def test_mixer(run, monkeypatch):
    monkeypatch.setattr('mmmap.utils.benchmark.time_in_turns', lambda calls, *_, **__: {k: [1e-3] for k in calls})
    printed, report = run('mixer', '--batch-size', 1)
    assert {row['group'] for row in report['rows']} >= {'bidirectional mixer', 'bidirectional scan'}
    assert 'one call takes 1.00 of two calls, flips' in printed
    assert all(peak > 0 for row in report['rows'] for peak in row['peak_bytes'].values())


def test_step(run, tiny_map):
    printed, report = run('step', tiny_map, '--batch-size', 2, '--repeats', 3)
    assert set(report['seconds']) == {'step', 'without scan'} and len(report['seconds']['step']) == 3
    parts = report['parts']
    assert set(parts) == {'scan', 'matrix products', 'attention', 'optimizer', 'causal convolution', 'rest'}
    for name, part in parts.items():
        assert part['ms'] > 0 and part['floor_ms'] > 0 and part['mib'] > 0, name
    # What the optimizer moves is known: parameter, gradient and two averages.
    assert 3.9 < parts['optimizer']['mib'] * 2**20 / (4 * report['parameters']) < 4.5
    assert 'one large matrix product' in printed


def test_step_in_bfloat16_takes_turns(run, tiny_map):
    printed, report = run('step', tiny_map, '--batch-size', 2, '--repeats', 3, '--bfloat16')
    assert set(report['seconds']) == {'step', 'without scan', 'step in bfloat16'}
    assert len(report['seconds']['step in bfloat16']) == 3
    median = report['median_seconds']['step in bfloat16']
    assert f'{"step in bfloat16":24s} {median * 1e3:10.1f} ms' in printed


def test_compile():
    tool = Path(__file__).parents[3] / 'tools/benchmarks/benchmark_compile.py'
    command = [sys.executable, tool, TINY, '--rounds', '1', '--repeats', '1', '--backend', 'eager']
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout
    rows = re.findall(r'^(\w+) +first step +([\d.]+) s +later steps +([\d.]+) ms$', printed, re.MULTILINE)
    assert [way for way, *_ in rows] == ['eager', 'whole', 'blocks']
    assert all(float(later) > 0 for *_, later in rows)
