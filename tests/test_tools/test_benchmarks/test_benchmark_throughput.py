"""Throughput of a pretraining model and of a classifier, inference and training."""

import json

import pytest
from PIL import Image


@pytest.mark.parametrize('kind', ['inference', 'training'])
@pytest.mark.parametrize('config', ['tiny_map', 'tiny_classifier'])
def test_throughput(run_tool, request, tmp_path, capsys, config, kind):
    files = ['--json', tmp_path / 'out.json', '--plot', tmp_path / 'out.png']
    options = ['--batch-size', 4, '--repeats', 3, '--warm-up', 1, '--threads', 1, '--shape', 32, 48]
    options += ['--train'] if kind == 'training' else []
    run_tool('benchmarks/benchmark_throughput.py', request.getfixturevalue(config), *options, *files)
    report = json.loads((tmp_path / 'out.json').read_text())
    assert report['kind'] == kind and len(report['seconds']) == 3
    assert report['images_per_second'] == pytest.approx(4 / sorted(report['seconds'])[1])
    assert report['peak_memory_mib'] > report['resident_mib'] > 0
    assert f'{report["images_per_second"]:.1f} images/s' in capsys.readouterr().out
    assert Image.open(tmp_path / 'out.png').width > 500


def test_training_takes_more_memory_than_inference(run_tool, tiny_classifier, tmp_path):
    peaks = []
    for train in ([], ['--train']):
        options = ['--repeats', 1, '--warm-up', 0, '--threads', 1, *train, '--json', tmp_path / 'out.json']
        run_tool('benchmarks/benchmark_throughput.py', tiny_classifier, *options)
        peaks.append(json.loads((tmp_path / 'out.json').read_text())['peak_memory_mib'])
    assert peaks[1] > peaks[0]


def test_evaluations_are_not_compiled(run_tool, tiny_classifier, capsys):
    with pytest.raises(SystemExit) as end:
        run_tool('benchmarks/benchmark_throughput.py', tiny_classifier, '--compile')
    assert end.value.code == 2 and '--compile: needs --train' in capsys.readouterr().err
