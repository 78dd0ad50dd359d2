"""Losses and gradients that are not finite ruin neither the run nor its checkpoints."""

import math
import random
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import training
from base import Campaign, Row
from mmengine.model import BaseModel


class Bad(NamedTuple):
    """What becomes not finite, and when.

    Attributes:
        folder (Path): Of the campaign.
        where (str): 'loss' or 'gradient'.
        value (float): NaN or infinity.
        step (int): The first such step, from 1.
        lasts (bool): Whether all later ones are as well.
    """

    folder: Path
    where: str
    value: float
    step: int
    lasts: bool

    def __str__(self) -> str:
        return f'{self.value} in the {self.where} {"from" if self.lasts else "of"} iteration {self.step}'


def run(campaign: Campaign) -> list[Row]:
    """Spoil steps of trainings."""
    draw = random.Random(campaign.seed)

    def cases(lasts: bool) -> list[Bad]:
        return [
            Bad(campaign.folder, ('loss', 'gradient')[number % 2], (math.nan, math.inf)[number // 2 % 2], step, lasts)
            for number in range(campaign.count(12, 1))
            for step in [draw.randint(1, 10 if lasts else training.ITERATIONS)]
        ]

    return [
        campaign.row('NaN or inf in the loss or the gradient of one step: skipped and said', _spoil, cases(False)),
        campaign.row(
            'NaN or inf in all steps from one on: the run stops, its checkpoints are finite', _spoil, cases(True)
        ),
    ]


def _spoil(case: Bad) -> str | None:
    work_dir = case.folder / f'bad_{case.where}_{case.value}_{case.step}_{case.lasts}'
    run = training.train(case.folder / 'pretraining.py', work_dir, first=partial(_spoil_steps, case))
    status, text = run.wait(), run.printed()
    paths = list(work_dir.glob('*_*.pth'))
    for path in paths:
        state = torch.load(path, weights_only=False)['state_dict']
        if not all(value.isfinite().all() for value in state.values()):
            return f'{path.name} is not finite'
    if case.lasts:
        if status != 1 or 'training stopped at iteration' not in text:
            return f'status {status}, {text.splitlines()[-1:]}'
        return run.complaint()
    if status != 0 or len(training.scalars(work_dir)) != training.ITERATIONS or not paths:
        return f'status {status}, {text.splitlines()[-1:]}'
    return None if f'Iteration {case.step}: step skipped' in text else 'nothing was said'


def _spoil_steps(case: Bad) -> None:
    parse, steps = BaseModel.parse_losses, 0

    def parse_losses(self, losses):
        nonlocal steps
        steps += 1
        loss, log = parse(self, losses)
        if steps == case.step or (case.lasts and steps > case.step):
            if case.where == 'gradient':
                loss.register_hook(lambda gradient: gradient * case.value)
            else:
                loss = loss * case.value
                log['loss'] = loss
        return loss, log

    BaseModel.parse_losses = parse_losses
