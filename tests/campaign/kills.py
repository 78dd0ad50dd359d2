"""A training killed at any moment and resumed is the training that was never killed."""

import os
import random
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import training
from base import Campaign, Row
from mmengine.model import BaseModel

from mmmap.models.selfsup import MAP


class Kill(NamedTuple):
    """When and how a training is killed.

    Attributes:
        folder (Path): Of the campaign.
        number (int): Of the trial.
        config (str): Of ``training.CONFIGS``.
        workers (int): Of the training's loader.
        moment (str): 'random', 'save' or 'evaluation'.
        seed (int): Of the exact moment.
    """

    folder: Path
    number: int
    config: str
    workers: int
    moment: str
    seed: int

    def __str__(self) -> str:
        return f'kill {self.number}, {self.config}, {self.workers} workers, {self.moment}'


def run(campaign: Campaign) -> list[Row]:
    """Kill trainings; resume them; compare."""
    moments = ('random', 'save', 'random', 'evaluation', 'random')
    kills = [
        Kill(
            campaign.folder,
            number,
            training.CONFIGS[number % 2],
            number // 2 % 2 * 2,
            moments[number % len(moments)],
            campaign.seed * 1000 + number,
        )
        for number in range(campaign.count(20))
    ]
    for config in {kill.config for kill in kills}:
        training.train(campaign.folder / f'{config}.py', campaign.folder / f'whole_{config}').wait()
    note = ', '.join(f'{sum(kill.moment == moment for kill in kills)} {text}' for moment, text in _WHERE.items())
    return [
        campaign.row('SIGKILL, then `--resume`: every loss and weight as without, to the last bit', _kill, kills, note)
    ]


_WHERE = {'random': 'at random', 'save': 'within a save', 'evaluation': 'within an evaluation'}


def _kill(kill: Kill) -> str | None:
    draw = random.Random(kill.seed)
    config, work_dir = kill.folder / f'{kill.config}.py', kill.folder / f'kill_{kill.number}'
    for attempt in range(5):
        folder = work_dir.with_name(f'{work_dir.name}_{attempt}')
        first = None
        if kill.moment == 'save':
            first = partial(_die_in_save, draw.randint(1, training.EPOCHS), draw.random() < 0.5)
        elif kill.moment == 'evaluation':
            first = partial(
                _die_in_evaluation, draw.randint(9, 20) if kill.config == 'pretraining' else draw.randint(1, 11)
            )
        run = training.train(config, folder, first=first, train_dataloader__num_workers=kill.workers)
        if first is None:
            run.until('(train)', draw.randint(1, training.ITERATIONS - 1))
            time.sleep(draw.uniform(0, 0.1))
            if run.process.exitcode is None:
                os.kill(run.pid, signal.SIGKILL)
        if run.wait() == -signal.SIGKILL:
            break
    else:
        return 'was over before the kill, five times'
    resumed = training.train(config, folder, '--resume', train_dataloader__num_workers=kill.workers)
    if (status := resumed.wait()) != 0:
        return f'resumed: status {status}, {resumed.printed().splitlines()[-1:]}'
    return training.difference(folder, kill.folder / f'whole_{kill.config}')


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in_save(number: int, before_rename: bool) -> None:
    """Die in the save of a checkpoint: before its bytes have their name, or while they are written."""
    pid, seen = os.getpid(), 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        if os.getpid() != pid or event != ('os.rename' if before_rename else 'open'):
            return
        target = str(arguments[1] if before_rename else arguments[0])
        if 'epoch_' in target and (before_rename or (target.endswith('.tmp') and 'w' in str(arguments[1]))):
            seen += 1
            if seen == number:
                if before_rename:
                    _die()
                threading.Timer(0.0005, _die).start()

    sys.addaudithook(hook)


def _die_in_evaluation(number: int) -> None:
    """Die in the given batch of an evaluation, of kNN or of a validation."""
    pid, seen = os.getpid(), 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal seen
            seen += os.getpid() == pid
            if seen == number:
                _die()
            return function(*args, **kwargs)

        return call

    MAP.extract_feat = counted(MAP.extract_feat)
    BaseModel.val_step = counted(BaseModel.val_step)
