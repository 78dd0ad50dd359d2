import os
import subprocess
import sys
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
    assert lines[1] == f'{TOOLS}/torchrun.py'
    assert {'--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=1234'} < set(lines)
    assert '--nproc_per_node=4' in lines
    assert lines[-len(tail) :] == [f'{TOOLS}/{tail[0]}', *tail[1:]]


def test_a_process_that_fails_is_the_last_line_and_has_no_traceback_of_torchrun(tmp_path):
    for how, said in (('sys.exit(3)', 'ended with status 3'), ('os.kill(os.getpid(), 9)', 'was killed by signal 9')):
        program = tmp_path / 'program.py'
        program.write_text(f"import os, sys, time\nif os.environ['RANK'] == '1':\n    {how}\ntime.sleep(60)\n")
        command = [sys.executable, TOOLS / 'torchrun.py', '--nproc-per-node=2', '--standalone', program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        lines = done.stderr.splitlines()
        assert done.returncode == 1 and not any('Traceback' in line for line in lines)
        assert lines[-1].startswith(f'error: the process of rank 1 {said}')


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


def _slurm_train(tmp_path, status, **variables):
    """Run slurm_train.sh where srun ends with a status; what srun and scontrol were given."""
    (tmp_path / 'srun').write_text(f'#!/bin/sh\necho "$@" > srun.log\nexit {status}\n')
    (tmp_path / 'scontrol').write_text('#!/bin/sh\necho "$@" > scontrol.log\n')
    for name in ('srun', 'scontrol'):
        (tmp_path / name).chmod(0o755)
        (tmp_path / f'{name}.log').unlink(missing_ok=True)
    environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', **variables}
    command = [TOOLS / 'slurm_train.sh', 'gpu', 'job', 'c.py']
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    log = tmp_path / 'scontrol.log'
    return result.returncode, (tmp_path / 'srun.log').read_text().split(), log.read_text() if log.exists() else None


def test_preempted_slurm_job_is_queued_again_and_resumes(tmp_path):
    status, arguments, requeued = _slurm_train(tmp_path, 75, SLURM_JOB_ID='17')
    assert '--signal=USR1@120' in arguments and '--resume' not in arguments
    assert (status, requeued) == (75, 'requeue 17\n')
    assert '--resume' in _slurm_train(tmp_path, 0, SLURM_JOB_ID='17', SLURM_RESTART_COUNT='1')[1]


def test_no_other_slurm_job_is_queued_again(tmp_path):
    for status, variables in ((0, dict(SLURM_JOB_ID='17')), (1, dict(SLURM_JOB_ID='17')), (75, {})):
        assert _slurm_train(tmp_path, status, **variables)[::2] == (status, None)


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_missing_arguments_show_the_usage(tmp_path, script):
    result = _run(tmp_path, script)
    assert result.returncode == 2
    assert result.stderr.startswith('usage:')
