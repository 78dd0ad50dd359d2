"""The benchmark of several GPUs, with processes on a CPU in their place."""

import json

import pytest
from PIL import Image

SMALL = ['--device', 'cpu', '--steps', 1, '--runs', 1, '--check-steps', 2, '--check-batch', 4]


def test_two_processes_lose_what_one_does(run_tool, tiny_map, tmp_path, capsys):
    config = tmp_path / 'dropping.py'
    config.write_text(f'_base_ = {str(tiny_map)!r}\nmodel = dict(backbone=dict(drop_path_rate=0.9))\n')
    files = ['--json', tmp_path / 'x.json', '--plot', tmp_path / 'x.png']
    run_tool('benchmarks/benchmark_gpus.py', *SMALL, '--gpus', 1, 2, '--models', f'{config}:fsdp:2', *files)
    printed, rows = capsys.readouterr().out, json.loads(files[1].read_text())['rows']
    assert [row['gpus'] for row in rows] == [1, 2]
    assert rows[1]['losses'] == pytest.approx(rows[0]['losses'], rel=1e-5)
    assert rows[1]['losses'][1] < rows[1]['losses'][0]
    assert rows[1]['of linear'] == pytest.approx(rows[1]['images/s'] / 2 / rows[0]['images/s'])
    assert '| fsdp | 2 | 2 |' in printed
    assert Image.open(files[3]).width > 500


def test_other_losses_end_with_an_error(run_tool, tiny_map, capsys):
    with pytest.raises(SystemExit, match=r'other losses than on one GPU: .*tiny_map.* on 1'):
        run_tool(
            'benchmarks/benchmark_gpus.py', *SMALL, '--gpus', 1, '--models', f'{tiny_map}:ddp:2', '--tolerance', -1
        )


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        (['--models', 'tiny:ddp'], 'write MODEL:WRAPPER:BATCH'),
        (['--models', 'tiny:dpp:8'], "'dpp' is none of ddp, fsdp"),
        (['--models', 'tny:ddp:8'], "'tny' is neither a size nor a config file"),
        (['--models', 'tiny:ddp:0'], 'the batch must be positive'),
        (['--gpus', '3'], '--check-batch 4: not a multiple of --gpus 3'),
        (['--steps', '0'], '--steps 0: must be positive'),
        (['--compile', 'fastest'], "invalid choice: 'fastest'"),
    ],
)
def test_arguments_are_checked(run_tool, capsys, arguments, said):
    with pytest.raises(SystemExit):
        run_tool('benchmarks/benchmark_gpus.py', *SMALL, *arguments)
    assert said in capsys.readouterr().err
