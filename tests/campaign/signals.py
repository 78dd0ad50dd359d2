"""Signals at any moment: the run saves and stops, and goes on as if it had not."""

import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import training
from base import Campaign, Row

from mmmap.engine.preemption import PREEMPTED_STATUS


class Stop(NamedTuple):
    """A signal.

    Attributes:
        folder (Path): Of the campaign.
        number (int): Of the trial.
        config (str): Of ``training.CONFIGS``.
        workers (int): Of the training's loader.
        name (str): Of the signal.
        to_group (bool): Whether the workers get it too.
        seed (int): Of the exact moment.
    """

    folder: Path
    number: int
    config: str
    workers: int
    name: str
    to_group: bool
    seed: int

    def __str__(self) -> str:
        target = 'the group' if self.to_group else 'the process'
        return f'{self.name} {self.number} to {target}, {self.config}, {self.workers} workers'


def run(campaign: Campaign) -> list[Row]:
    """Stop trainings by signals; resume them; compare."""
    stops = [
        Stop(
            campaign.folder,
            number,
            training.CONFIGS[number % 2],
            number // 2 % 2 * 2,
            ('SIGTERM', 'SIGUSR1', 'SIGINT', 'SIGHUP')[number % 4],
            number % 3 > 0,
            campaign.seed * 1000 + number,
        )
        for number in range(campaign.count(16))
    ]
    for config in {stop.config for stop in stops}:
        training.train(campaign.folder / f'{config}.py', campaign.folder / f'unstopped_{config}').wait()
    what = 'SIGTERM, SIGUSR1, SIGINT, SIGHUP at random: status 75, then `--resume`: every loss and weight as without'
    return [campaign.row(what, _stop, stops)]


def _stop(stop: Stop) -> str | None:
    draw = random.Random(stop.seed)
    config, number = stop.folder / f'{stop.config}.py', getattr(signal, stop.name)
    for attempt in range(5):
        work_dir = stop.folder / f'stop_{stop.number}_{attempt}'
        run = training.train(config, work_dir, train_dataloader__num_workers=stop.workers)
        run.until('(train)', draw.randint(1, training.ITERATIONS - 1))
        time.sleep(draw.uniform(0, 0.1))
        if run.process.exitcode is None:
            (os.killpg if stop.to_group else os.kill)(run.pid, number)
        status = run.wait()
        if status != 0:
            break
    else:
        return 'was over before the signal, five times'
    if status != PREEMPTED_STATUS or run.printed().count('the same command with --resume') != 1:
        return f'status {status}, {run.printed().splitlines()[-1:]}'
    if 'Traceback' in run.printed():
        return 'a traceback'
    resumed = training.train(config, work_dir, '--resume', train_dataloader__num_workers=stop.workers)
    if (status := resumed.wait()) != 0:
        return f'resumed: status {status}, {resumed.printed().splitlines()[-1:]}'
    if left := list(work_dir.glob('iter_*.pth')):
        return f'{left[0].name} was left behind'
    return training.difference(work_dir, stop.folder / f'unstopped_{stop.config}')
