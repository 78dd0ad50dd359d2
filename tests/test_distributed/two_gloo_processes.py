"""Runs a worker of these tests in two gloo processes."""

import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_in_two_processes(worker: str, *arguments: object) -> str:
    """Run a script in two processes under torchrun.

    Args:
        worker (str): The script, the name of a file in this folder.
        *arguments (object): Its arguments.

    Returns:
        str: What both printed.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2']
    command += ['--master-addr=127.0.0.1', f'--master-port={port}', str(Path(__file__).with_name(worker))]
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *map(str, arguments)], env=env, stdout=pipe, stderr=pipe, text=True) as launcher:
        try:
            output, errors = launcher.communicate(timeout=240)
        except BaseException:
            launcher.terminate()  # It ends its workers, which a kill would leave behind.
            raise
    assert launcher.returncode == 0, errors[-3000:]
    return output
