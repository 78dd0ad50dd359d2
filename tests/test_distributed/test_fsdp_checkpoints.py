"""FSDP in two gloo processes: checkpoints that are folders, or files."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import fsdp_worker
import pytest

from mmmap.engine.checkpoint import damage_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('kind', ['local', 'full'])
def test_checkpoints_are_written_retired_and_resumed_from(tmp_path, kind):
    run = tmp_path / 'run'
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2']
    command += ['--master-addr=127.0.0.1', f'--master-port={port}', fsdp_worker.__file__, str(run), kind]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True) as launcher:
        try:
            output, errors = launcher.communicate(timeout=240)
        except BaseException:
            launcher.terminate()  # It ends its workers, which a kill would leave behind.
            raise
    assert launcher.returncode == 0, errors[-3000:]
    assert output.count(f'Resuming from {run / "epoch_3.pth"}. ended at epoch 5, iteration 10') == 2
    assert sorted(path.name for path in run.glob('*.pth*')) == ['epoch_4.pth', 'epoch_5.pth']
    for checkpoint in run.glob('*.pth'):
        assert damage_of(checkpoint) is None
        if kind == 'local':
            assert sorted(path.name for path in checkpoint.iterdir()) == ['rank0.pth', 'rank1.pth']
