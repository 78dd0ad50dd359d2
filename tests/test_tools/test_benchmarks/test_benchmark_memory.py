"""The benchmark of memory with and without gradient checkpointing."""

import json

import pytest
from PIL import Image


@pytest.mark.parametrize('options', [[], ['--window-size', 4]], ids=['global', 'windows'])
def test_checkpointing_takes_less_than_half(run_tool, tmp_path, capsys, options):
    files = ['--json', tmp_path / 'out.json', '--plot', tmp_path / 'out.png']
    run_tool('benchmarks/benchmark_memory.py', '--pixels', 256, '--batch-size', 2, '--threads', 1, *options, *files)
    report = json.loads((tmp_path / 'out.json').read_text())
    rows = [report['rows'][f'{with_cp} checkpointing'] for with_cp in ('without', 'with', 'selective')]
    plain, recomputed, _ = rows
    # It was the same step.
    assert [row['squared_gradients'] for row in rows] == pytest.approx([plain['squared_gradients']] * 3, rel=1e-6)
    assert recomputed['squared_gradients'] > 0
    assert 0 < report['ratio'] < report['ratio_selective'] < 0.5
    assert report['ratio'] == pytest.approx(recomputed['peak_bytes'] / plain['peak_bytes'])
    printed = capsys.readouterr().out
    assert f'with checkpointing {report["ratio"]:.3f} of the memory, selective' in printed
    assert f'{plain["peak_bytes"] / 2**20:.1f} MiB' in printed
    assert Image.open(tmp_path / 'out.png').width > 500


def test_a_size_that_does_not_fit_is_one_line(run_tool, capsys):
    with pytest.raises(SystemExit) as ended:
        run_tool('benchmarks/benchmark_memory.py', '--pixels', 120, '--threads', 1)
    assert '120x120' in str(ended.value) + capsys.readouterr().err
