"""Two processes under dist_train.sh that a signal stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / 'tools'


def _children(pid):
    return [int(child) for path in Path(f'/proc/{pid}/task').glob('*/children') for child in path.read_text().split()]


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds the processes in /proc')
@pytest.mark.parametrize('target', ['group', 'rank'])
def test_two_processes_stop_together(tiny_map, tmp_path, target):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = os.environ | dict(PYTHON=sys.executable, PORT=str(port), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    command = [
        TOOLS / 'dist_train.sh',
        tiny_map,
        '2',
        '--work-dir',
        'run',
        '--cfg-options',
        'train_cfg.max_epochs=1000',
    ]
    command += ['default_hooks.preemption.type=PreemptionHook', 'default_hooks.checkpoint.interval=1000']
    log = tmp_path / 'log'
    with open(log, 'w') as out:
        script = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)
    try:
        deadline = time.time() + 120
        while 'Epoch(train)' not in log.read_text():
            assert script.poll() is None and time.time() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        if target == 'group':
            os.killpg(script.pid, signal.SIGTERM)
        else:
            (torchrun,) = (pid for pid in _children(script.pid) if _children(pid))
            os.kill(_children(torchrun)[-1], signal.SIGHUP)
        assert script.wait(60) == 75
    finally:
        script.terminate()
        script.wait(60)
    text = log.read_text()
    assert 'Traceback' not in text and text.count('the same command with --resume') == 1
    path = Path((tmp_path / 'run' / 'last_checkpoint').read_text())
    assert path.name == f'iter_{torch.load(path, weights_only=False)["meta"]["iter"]}.pth'
