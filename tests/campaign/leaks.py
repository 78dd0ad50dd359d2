"""A long training takes no more memory, file handles, threads and processes at its end than after its start."""

import json
import os
from functools import partial
from pathlib import Path

import training
from base import Campaign, Row
from mmengine.hooks import Hook
from mmengine.runner import Runner

_MEGABYTE = 2**20


def run(campaign: Campaign) -> list[Row]:
    """Train for long, with workers that are started anew in every epoch and without."""
    iterations = campaign.count(2000, 160)
    cases = [(campaign.folder, iterations, workers) for workers in (0, 2)]
    what = f'{iterations} iterations, with kNN and a checkpoint every 8: memory and handles stay flat'
    return [campaign.row(what, _measure, cases, 'without workers, and with 2 started anew in every epoch')]


def _measure(case: tuple[Path, int, int]) -> str | None:
    folder, iterations, workers = case
    work_dir = folder / f'leaks_{workers}'
    epochs = iterations // 8
    run = training.train(
        folder / 'pretraining.py',
        work_dir,
        first=partial(_watch, work_dir / 'usage.json'),
        train_cfg__max_epochs=epochs,
        param_scheduler__1__T_max=epochs - 1,
        param_scheduler__1__end=epochs,
        train_dataloader__num_workers=workers,
        train_dataloader__persistent_workers=False,
    )
    if (status := run.wait(900)) != 0:
        return f'status {status}, {run.printed().splitlines()[-1:]}'
    usage = json.loads((work_dir / 'usage.json').read_text())
    # What is loaded and cached once is there after a quarter.
    early, late = usage[len(usage) // 4], usage[-1]
    grown = (late['memory'] - early['memory']) / _MEGABYTE
    if grown > 10:
        return f'{grown:.0f} MB more after {late["iteration"]} iterations than after {early["iteration"]}'
    for name in ('handles', 'threads'):
        if late[name] > early[name]:
            return f'{late[name]} {name} after {late["iteration"]} iterations, {early[name]} after {early["iteration"]}'
    return None


def _watch(path: Path) -> None:
    class Usage(Hook):
        priority = 'LOWEST'

        def __init__(self) -> None:
            self.usage = []

        def before_train_epoch(self, runner: Runner) -> None:
            # Between two epochs there are no workers.
            pages = int(Path('/proc/self/statm').read_text().split()[1])
            self.usage.append(
                dict(
                    iteration=runner.iter,
                    memory=pages * os.sysconf('SC_PAGE_SIZE'),
                    handles=len(os.listdir('/proc/self/fd')),
                    threads=len(os.listdir('/proc/self/task')),
                )
            )

        def after_train(self, runner: Runner) -> None:
            path.write_text(json.dumps(self.usage))

    register = Runner.register_hooks

    def register_hooks(self, *args, **kwargs):
        register(self, *args, **kwargs)
        self.register_hook(Usage())

    Runner.register_hooks = register_hooks
