import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / 'tools'


def _run(tmp_path, script, *arguments, **variables):
    """Run a launcher with `python` and `srun` replaced by one that prints its arguments, one a line."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text('#!/bin/sh\necho "PYTHONPATH=$PYTHONPATH"\nprintf "%s\\n" "$@"\n')
        (tmp_path / name).chmod(0o755)
    environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': 'python', **variables}
    return subprocess.run([TOOLS / script, *arguments], capture_output=True, text=True, env=environment, cwd=tmp_path)


@pytest.mark.parametrize(
    ('script', 'arguments', 'tail'),
    [
        ('dist_train.sh', ['a config.py', '4', '--amp'], ['train.py', 'a config.py', '--launcher', 'pytorch', '--amp']),
        ('dist_test.sh', ['c.py', 'w.pth', '4'], ['test.py', 'c.py', 'w.pth', '--launcher', 'pytorch']),
    ],
)
def test_torchrun_launchers(tmp_path, script, arguments, tail):
    lines = _run(tmp_path, script, *arguments, NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1', PORT='1234')
    lines = lines.stdout.splitlines()
    assert lines[0] == f'PYTHONPATH={TOOLS.parent}'
    assert lines[1:3] == ['-m', 'torch.distributed.run']
    assert {'--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=1234'} < set(lines)
    assert '--nproc_per_node=4' in lines
    assert lines[-len(tail) :] == [f'{TOOLS}/{tail[0]}', *tail[1:]]


@pytest.mark.parametrize(
    ('script', 'arguments', 'tail'),
    [
        ('slurm_train.sh', ['gpu', 'job', 'c.py', '--amp'], ['train.py', 'c.py', '--launcher', 'slurm', '--amp']),
        ('slurm_test.sh', ['gpu', 'job', 'c.py', 'w.pth'], ['test.py', 'c.py', 'w.pth', '--launcher', 'slurm']),
    ],
)
def test_slurm_launchers(tmp_path, script, arguments, tail):
    variables = dict(GPUS='16', CPUS_PER_TASK='3', SRUN_ARGS='--time=1:00 --exclusive', PYTHONPATH='/mine')
    lines = _run(tmp_path, script, *arguments, **variables).stdout.splitlines()
    assert lines[0] == f'PYTHONPATH={TOOLS.parent}:/mine'
    assert {'--partition=gpu', '--job-name=job', '--gres=gpu:8', '--ntasks=16', '--ntasks-per-node=8'} < set(lines)
    assert {'--cpus-per-task=3', '--time=1:00', '--exclusive'} < set(lines)
    assert lines[-len(tail) :] == [f'{TOOLS}/{tail[0]}', *tail[1:]]
    lines = _run(tmp_path, script, *arguments, GPUS='2').stdout.splitlines()
    assert {'--gres=gpu:2', '--ntasks=2', '--ntasks-per-node=2'} < set(lines)


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_missing_arguments_show_the_usage(tmp_path, script):
    result = _run(tmp_path, script)
    assert result.returncode == 2
    assert result.stderr.startswith('usage:')
