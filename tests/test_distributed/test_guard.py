"""The guard on two gloo processes, under DDP and FSDP: both decide alike."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory) -> list[dict]:
    """What each of two processes under torchrun saw."""
    folder = tmp_path_factory.mktemp('guard')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2']
    command += ['--master-addr=127.0.0.1', f'--master-port={port}']
    command += [str(Path(__file__).with_name('guard_worker.py')), str(folder)]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as launcher:
        try:
            _, errors = launcher.communicate(timeout=240)
        except BaseException:
            launcher.terminate()  # It ends its workers, which a kill would leave behind.
            raise
    assert launcher.returncode == 0, errors[-3000:]
    return torch.load(folder / 'result.pth')


@pytest.mark.parametrize(('case', 'skipped'), [('loss', 2), ('constant', 2), ('gradient', 1), ('fsdp', 3)])
def test_what_one_process_finds_skips_the_step_of_both(two_processes, case, skipped):
    expected = ([iteration != skipped for iteration in range(6)], 'finished')
    assert [found[case] for found in two_processes] == [expected, expected]


def test_both_stop_at_once_and_name_the_process_and_its_files(two_processes):
    (first, line), second = two_processes[0]['stop'], two_processes[1]['stop']
    assert second == (first, line)
    assert first == [True, True, False, False]
    assert line.startswith('training stopped at iteration 4: 2 steps in a row were skipped, not finite: loss=nan')
    assert 'on rank 1, files: img_1.png, img_3.png; the batch is in' in line
    assert Path(line.split('the batch is in ')[1].split(';')[0]).name == 'non_finite_iter_4_rank_1.pt'
