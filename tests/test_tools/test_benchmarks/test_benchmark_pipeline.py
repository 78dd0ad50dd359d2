"""The benchmark of the data pipeline, on images so small that its figures mean nothing."""

import json

from PIL import Image


def test_prints_a_table_and_writes_figures_and_a_plot(run_tool, tmp_path, capsys):
    files = ['--json', tmp_path / 'figures.json', '--plot', tmp_path / 'plot.png']
    run_tool('benchmarks/benchmark_pipeline.py', '--images', 2, '--size', 40, 30, '--repeats', 1, *files)
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / 'figures.json').read_text())
    assert result['size'] == [40, 30] and result['kilobytes'] > 0.5
    assert result['machine']['threads'] == 1 and result['machine']['seed'] == 0
    assert set(result['images_per_second']) == {'mmpretrain', 'LoadImageChecked', 'LoadRandomResizedCrop'}
    for name, speed in result['images_per_second'].items():
        assert f'{name:24s} {speed:8.0f} images/s' in printed
        assert abs(speed * sum(result['milliseconds'][name].values()) - 1e3) < 1
    assert result['speedup']['mmpretrain'] == 1
    assert Image.open(tmp_path / 'plot.png').width > 500
