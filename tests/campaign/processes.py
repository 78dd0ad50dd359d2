"""Processes that die, and runs that go on with another number of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
import training
from base import ROOT, Campaign, Row

from mmmap.engine.preemption import PREEMPTED_STATUS


def run(campaign: Campaign) -> list[Row]:
    """Kill a data-loader worker, a rank; change the number of ranks."""
    for config in training.CONFIGS:
        training.train(campaign.folder / f'{config}.py', campaign.folder / f'undisturbed_{config}').wait()
    workers = [
        (campaign.folder, training.CONFIGS[number % 2], 1 + 5 * number) for number in range(campaign.count(4, 1))
    ]
    rows = [
        campaign.row('a data-loader worker killed: one line, then `--resume` as if it had not', _kill_worker, workers)
    ]
    if not campaign.quick:
        ranks = [(campaign.folder, number) for number in range(2)]
        jobs, campaign.jobs = campaign.jobs, 1
        what = 'one of two processes killed: the other ends within 30 s, `--resume` goes on'
        rows.append(campaign.row(what, _kill_rank, ranks))
        what = '1 -> 2 -> 4 -> 1 processes, each stopped by a signal and resumed: the schedule ends where it should'
        rows.append(campaign.row(what, _change_world, [campaign.folder]))
        campaign.jobs = jobs
    return rows


def _kill_worker(case: tuple[Path, str, int]) -> str | None:
    folder, config, iteration = case
    work_dir = folder / f'worker_{config}_{iteration}'
    run = training.train(folder / f'{config}.py', work_dir, train_dataloader__num_workers=2)
    run.until('(train)', iteration)
    workers = children(run.pid)
    if not workers:
        return 'there was no worker to kill'
    os.kill(workers[0], signal.SIGKILL)
    if (status := run.wait(60)) != 1:
        return f'status {status}'
    if complaint := run.complaint():
        return complaint
    resumed = training.train(folder / f'{config}.py', work_dir, '--resume', train_dataloader__num_workers=2)
    if (status := resumed.wait()) != 0:
        return f'resumed: status {status}, {resumed.printed().splitlines()[-1:]}'
    return training.difference(work_dir, folder / f'undisturbed_{config}')


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(child) for path in Path(f'/proc/{pid}/task').glob('*/children') for child in path.read_text().split()]


class Ranks:
    """A training of several processes under ``dist_train.sh``.

    Args:
        number (int): Of processes.
        config (Path): The config.
        work_dir (Path): Of the run.
        *arguments (str): More of the command line.
    """

    def __init__(self, number: int, config: Path, work_dir: Path, *arguments: str) -> None:
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = free.getsockname()[1]
        environment = os.environ | dict(
            PYTHON=sys.executable, PORT=str(port), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore'
        )
        self.log = work_dir.with_name(f'{work_dir.name}.{time.time_ns()}.ranks')
        command = [ROOT / 'tools' / 'dist_train.sh', config, str(number), '--work-dir', work_dir, *arguments]
        with open(self.log, 'w') as file:
            self.script = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)

    def until(self, text: str, seconds: float = 200) -> bool:
        """Wait until a text is printed; False if the run ends before."""
        end = time.time() + seconds
        while text not in self.log.read_text():
            if self.script.poll() is not None or time.time() > end:
                return False
            time.sleep(0.05)
        return True

    def ranks(self) -> list[int]:
        """The processes."""
        return next((children(pid) for pid in children(self.script.pid) if children(pid)), [])

    def wait(self, seconds: float) -> int | None:
        """The exit status of the script; None, and all is killed, if it does not end in time."""
        try:
            return self.script.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in [*self.ranks(), *children(self.script.pid), self.script.pid]:
                os.kill(pid, signal.SIGKILL)
            self.script.wait()
            return None


def _kill_rank(case: tuple[Path, int]) -> str | None:
    folder, rank = case
    config, work_dir = folder / 'classification.py', folder / f'rank_{rank}'
    long = '--cfg-options', 'train_cfg.max_epochs=500'
    run = Ranks(2, config, work_dir, *long)
    if not run.until('Saving checkpoint at 2 epochs'):
        return f'did not start: {run.log.read_text().splitlines()[-1:]}'
    os.kill(run.ranks()[rank], signal.SIGKILL)
    status = run.wait(30)
    if status in (None, 0, PREEMPTED_STATUS):
        return f'status {status} (None: not over after 30 s)'
    resumed = Ranks(2, config, work_dir, '--resume', *long)
    if not resumed.until('Saving checkpoint at'):
        return f'resumed: {resumed.log.read_text().splitlines()[-1:]}'
    os.kill(resumed.script.pid, signal.SIGTERM)
    status = resumed.wait(60)
    return None if status == PREEMPTED_STATUS else f'resumed: status {status}'


def _change_world(folder: Path) -> str | None:
    config, work_dir = folder / 'pretraining.py', folder / 'worlds'
    # Of one process: 40 epochs of 8 iterations.
    long = ['train_cfg.max_epochs=40', 'param_scheduler.1.T_max=39', 'param_scheduler.1.end=40']
    options = {part.split('=')[0].replace('.', '__'): part.split('=')[1] for part in long}
    training.train(config, folder / 'one_world', **options).wait()
    for number, epoch in ((1, 3), (2, 8), (4, 13)):
        resume = ['--resume'] if number > 1 else []
        run = Ranks(number, config, work_dir, *resume, '--cfg-options', *long)
        if not run.until(f'Saving checkpoint at {epoch} epochs'):
            return f'{number} processes: {run.log.read_text().splitlines()[-1:]}'
        os.kill(run.script.pid, signal.SIGTERM)
        if (status := run.wait(60)) != PREEMPTED_STATUS:
            return f'{number} processes: status {status}, {run.log.read_text().splitlines()[-1:]}'
    last = training.train(config, work_dir, '--resume', **options)
    if (status := last.wait()) != 0:
        return f'1 process again: status {status}, {last.printed().splitlines()[-1:]}'
    ends = [max(training.scalars(path, 'lr').items()) for path in (work_dir, folder / 'one_world')]
    if ends[0][1] != ends[1][1]:
        return f'the last learning rate is {ends[0][1]}, without interruptions {ends[1][1]}'
    epoch = torch.load((work_dir / 'last_checkpoint').read_text(), weights_only=False)['meta']['epoch']
    return None if epoch == 40 else f'ended after {epoch} epochs'
