"""The benchmark of cost against length: what it compares, what it makes of the figures, and a run of it."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from PIL import Image

from mmmap.utils.benchmark import peak_memory

TOOL = Path(__file__).parents[3] / 'tools/benchmarks/benchmark_scaling.py'


@pytest.fixture(scope='module')
def tool() -> dict:
    return runpy.run_path(str(TOOL))


@pytest.mark.parametrize('depth', [4, 8, 32])
def test_the_vit_has_as_many_parameters(tool, depth):
    encoders = tool['build_encoders'](depth, torch.device('meta'))
    sizes = {name: tool['count_parameters'](encoder) for name, encoder in encoders.items()}
    assert sizes['ViT'] == pytest.approx(sizes['MMMT'], rel=0.01)
    assert sizes['M'] == pytest.approx(sizes['MMMT'], rel=0.03)
    assert [set(encoder.layout) for encoder in encoders.values()] == [{'M'}, {'M', 'T'}, {'T'}]
    assert 2.5 < encoders['ViT'].blocks[0].mlp.fc1.out_features / 192 < 5.5


def test_crossing_of_power_laws(tool):
    lengths = [64, 256, 1024, 4096]
    flat, rising = dict.fromkeys(lengths, 30.0), {n: 3 * n**0.5 for n in lengths}
    assert tool['crossing'](flat, rising) == pytest.approx(100)
    assert tool['crossing'](rising, flat) is None
    assert tool['crossing'](dict.fromkeys(lengths, 1.0), rising) == 64
    # Below for good only behind the last crossing.
    assert tool['crossing'](flat, {64: 60.0, 256: 15.0, 1024: 60.0, 4096: 90.0}) == pytest.approx(512)


def test_growth(tool):
    assert tool['growth']({64: 9.0, 1024: 2.0, 4096: 3.0}) == (1024, 4096, 1.5)
    assert tool['growth']({64: 4.0, 128: 2.0}) == (64, 128, 0.5)


def test_peak_memory_counts_what_is_alive():
    def step():
        big = torch.ones(2**18)  # 1 MiB
        del big
        first, second = torch.ones(2**17), torch.ones(2**17)
        return first, second, torch.ones(2**17)

    assert peak_memory(step) == 3 * 2**19


def test_a_run(run_tool, tmp_path, capsys):
    out, picture = tmp_path / 'scaling.json', tmp_path / 'scaling.png'
    options = ['--lengths', 32, 16, '--tokens', 32, '--repeats', 2, '--threads', 1, '--json', out, '--plot', picture]
    run_tool('benchmarks/benchmark_scaling.py', *options)
    printed = capsys.readouterr().out
    assert 'M: time per token grows' in printed
    report = json.loads(out.read_text())
    assert [(row['length'], row['batch'], row['name']) for row in report['rows']] == [
        (length, batch, name) for length, batch in ((16, 2), (32, 1)) for name in ('M', 'MMMT', 'ViT')
    ]
    for row in report['rows']:
        assert len(row['seconds']) == 2
        assert row['us_per_token'] == pytest.approx(1e6 * min(row['seconds']) / 32)
        # At least its own gradients of float32 are alive at the end of the backward pass.
        assert row['peak_bytes'] > 4 * report['models'][row['name']]['parameters']
    assert report['machine']['threads'] == 1
    assert set(report['crossing']) == {'time', 'memory'}
    assert Image.open(picture).size[0] > 500


def test_a_wrong_depth_is_named(run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool('benchmarks/benchmark_scaling.py', '--depth', 6)
    assert '--depth 6' in capsys.readouterr().err
