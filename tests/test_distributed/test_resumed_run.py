"""Runs of two gloo processes that go on, in two and in one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import config, run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """What two processes under torchrun wrote."""
    folder = tmp_path_factory.mktemp('two')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2']
    worker = Path(__file__).with_name('resume_worker.py')
    command += ['--master-addr=127.0.0.1', f'--master-port={port}', str(worker), str(folder)]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as launcher:
        try:
            _, errors = launcher.communicate(timeout=240)
        except BaseException:
            launcher.terminate()  # It ends its workers, which a kill would leave behind.
            raise
    assert launcher.returncode == 0, errors[-3000:]
    return folder


def test_two_processes_go_on_between_two_steps(folder):
    first, second = (torch.load(folder / f'rank{rank}.pth') for rank in (0, 1))
    assert first['same']
    assert second['same']
    assert first['losses'] != second['losses']


def test_one_process_goes_on_from_two(folder, tmp_path):
    # 5 of 9 iterations of two processes are 1 2/3 epochs: 8 1/3 of 15 in one.
    _, whole = run(config(tmp_path))
    _, second = run(config(tmp_path), folder / 'start' / 'iter_5.pth')
    assert second.places == {key: whole.places[key] for key in range(8, 15)}
    assert second.rates == pytest.approx({key: whole.rates[key] for key in range(8, 15)}, rel=1e-6)
