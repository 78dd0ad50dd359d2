"""Processes under dist_train.sh that a signal stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
STATUS = 75


def _start(log, config, *options, resume=False):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = os.environ | dict(PYTHON=sys.executable, PORT=str(port), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    command = [ROOT / 'tools' / 'dist_train.sh', config, '2', '--work-dir', 'run', *(['--resume'] if resume else [])]
    command += ['--cfg-options', 'default_hooks.preemption.type=PreemptionHook', *options]
    with open(log, 'w') as out:
        return subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)


def _stop(script, log, send):
    """Wait for the training to begin; send the signal; the exit status."""
    try:
        deadline = time.time() + 200
        while 'Epoch(train)' not in log.read_text():
            assert script.poll() is None and time.time() < deadline, log.read_text()[-3000:]
            time.sleep(0.1)
        send(script)
        return script.wait(100)
    finally:
        script.terminate()
        script.wait(100)


def _children(pid):
    return [int(child) for path in Path(f'/proc/{pid}/task').glob('*/children') for child in path.read_text().split()]


def _check(log, work_dir):
    """What a stopped run leaves; the iteration."""
    text = log.read_text()
    assert 'Traceback' not in text and text.count('the same command with --resume') == 1
    path = work_dir / Path((work_dir / 'last_checkpoint').read_text()).name
    iteration = torch.load(path, weights_only=False)['meta']['iter']
    assert path.name == f'iter_{iteration}.pth'
    return iteration


def test_a_signal_to_the_script_stops_all_processes(tiny_map, tmp_path):
    log = tmp_path / 'log'
    script = _start(log, tiny_map, 'train_cfg.max_epochs=1000', 'default_hooks.checkpoint.interval=1000')
    assert _stop(script, log, lambda script: os.killpg(script.pid, signal.SIGTERM)) == STATUS
    _check(log, tmp_path / 'run')


@pytest.mark.skipif(not Path('/proc/self/task').is_dir(), reason='finds the processes in /proc')
def test_a_signal_to_one_process_stops_a_model_that_is_split_over_both(tiny_map, tmp_path):
    config = tmp_path / 'fsdp.py'
    bases = [str(tiny_map), str(ROOT / 'configs' / '_base_' / 'strategies' / 'fsdp.py')]
    optim_wrapper = "optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))"
    config.write_text(f'_base_ = {bases}\n{optim_wrapper}\n')

    def signal_one(script):
        (torchrun,) = (pid for pid in _children(script.pid) if _children(pid))
        os.kill(_children(torchrun)[-1], signal.SIGHUP)

    log, options = tmp_path / 'log', ('train_cfg.max_epochs=1000', 'default_hooks.checkpoint.interval=1000')
    assert _stop(_start(log, config, *options), log, signal_one) == STATUS
    iteration = _check(log, tmp_path / 'run')
    # Two iterations an epoch; it goes on from there.
    resumed = _start(log, config, f'train_cfg.max_epochs={iteration // 2 + 2}', resume=True)
    assert resumed.wait(200) == 0, log.read_text()[-3000:]
    assert f'iter: {iteration}' in log.read_text()
    assert not list((tmp_path / 'run').glob('iter_*.pth'))
