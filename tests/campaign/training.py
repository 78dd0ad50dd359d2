"""Trainings of a second, each in a process of its own, and what they leave behind."""

import json
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from string import Template

import torch
from base import ROOT
from PIL import Image

# An epoch has eight iterations. Crops, drop path, kNN or validation after every epoch.
_PRETRAINING = """
_base_ = '$ROOT/configs/map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'
model = dict(
    backbone=dict(arch=dict(embed_dim=32, layout='MT', num_heads=2), drop_path_rate=0.1),
    neck=dict(embed_dim=32, depth=1, num_heads=2),
)
labelled = dict(_base_.bank_dataloader, batch_size=8)
labelled['dataset'] = dict(labelled['dataset'], data_root='$DATA')
custom_hooks = [
    dict(type='ReconstructionHook', interval=2),
    dict(type='KNNHook', bank_dataloader=labelled, query_dataloader=labelled, interval=1, k=5),
]
"""
_CLASSIFICATION = """
_base_ = '$ROOT/configs/map/benchmarks/map_hybrid-digits_1xb64-finetune-coslr-10e_digits-28px.py'
model = dict(
    backbone=dict(arch=dict(embed_dim=32, layout='MT', num_heads=2), drop_path_rate=0.1, init_cfg=None),
)
val_dataloader = dict(batch_size=8, dataset=dict(data_root='$DATA'))
test_dataloader = val_dataloader
"""
_COMMON = """
train_dataloader = dict(batch_size=4, dataset=dict(data_root='$DATA'))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', T_max=2, by_epoch=True, begin=1, end=3, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=2))
# The loss of each iteration, not a mean over several.
log_processor = dict(window_size=1)
"""
EPOCHS, ITERATIONS = 3, 24
CONFIGS = ('pretraining', 'classification')


def prepare(folder: Path) -> None:
    """Write the images and configs of all trials.

    Args:
        folder (Path): Of the campaign.
    """
    sys.path.insert(0, str(ROOT / 'tests' / 'test_configs'))
    from generated_data import write_digits

    data = folder / 'digits'
    write_digits(data)
    for number in range(2):  # 32 images: the last batch is a whole one.
        Image.open(data / 'train' / '0' / f'{number}.png').save(data / 'train' / '9' / f'more{number}.png')
    for name, text in zip(CONFIGS, (_PRETRAINING, _CLASSIFICATION), strict=True):
        text = Template(text + _COMMON).substitute(ROOT=ROOT, DATA=data)
        (folder / f'{name}.py').write_text(text)


class Run:
    """A process of ``tools/train.py`` or another tool, forked from this one, which has imported everything already.

    Args:
        tool (str): The path of the script below ``tools``.
        *arguments (object): Of the command line.
        log (Path): Gets what it prints; written anew.
        first (Callable, optional): Called in the new process before the tool.
    """

    def __init__(self, tool: str, *arguments: object, log: Path, first: Callable | None = None) -> None:
        self.log = log
        self.process = multiprocessing.get_context('fork').Process(
            target=self._main, args=(tool, list(map(str, arguments)), first)
        )
        self.process.start()

    def _main(self, tool: str, arguments: list[str], first: Callable | None) -> None:
        os.setsid()
        with open(self.log, 'wb') as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.stdout, sys.stderr = os.fdopen(1, 'w', buffering=1), os.fdopen(2, 'w', buffering=1)
        os.environ['PYTHONPATH'] = str(ROOT)
        torch.set_num_threads(1)
        if first is not None:
            first()
        sys.argv = [str(ROOT / 'tools' / tool), *arguments]
        runpy.run_path(sys.argv[0], run_name='__main__')

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def wait(self, seconds: float = 120) -> int | None:
        """The exit status, negative after a signal; None, and the process is killed, if it does not end in time."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            return None
        return self.process.exitcode

    def until(self, text: str, times: int = 1, seconds: float = 120) -> bool:
        """Wait until it has printed a text so many times; False if it ends before."""
        end = time.time() + seconds
        while self.printed().count(text) < times:
            if self.process.exitcode is not None or time.time() > end:
                return False
            time.sleep(0.005)
        return True

    def printed(self) -> str:
        """All it has printed so far."""
        return self.log.read_text(errors='replace') if self.log.exists() else ''

    def complaint(self) -> str | None:
        """What is wrong with the end of a run that should end in one line; None if nothing is."""
        lines = self.printed().splitlines()
        if 'Traceback (most recent call last)' in self.printed():
            return 'a traceback'
        if not lines or not any(line.startswith('error') for line in lines[-3:]):
            return f'no line that says why; the last is {lines[-1] if lines else ""!r}'
        return None


def train(config: Path, work_dir: Path, *arguments: object, first: Callable | None = None, **options: object) -> Run:
    """Start a training.

    Args:
        config (Path): The config.
        work_dir (Path): Of the run.
        *arguments (object): More of the command line.
        first (Callable, optional): Called in the new process before the tool.
        **options (object): Settings for ``--cfg-options``, ``__`` for a dot.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    number = len(list(work_dir.parent.glob(f'{work_dir.name}.*.log')))
    settings = [f'{key.replace("__", ".")}={value}' for key, value in options.items()]
    arguments = [config, '--work-dir', work_dir, *arguments, *(['--cfg-options', *settings] if settings else [])]
    return Run('train.py', *arguments, log=work_dir.parent / f'{work_dir.name}.{number}.log', first=first)


def scalars(work_dir: Path, key: str = 'loss') -> dict[int, float]:
    """A logged number of each iteration, of the later run where two have one."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.parent.parent.name):
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except ValueError:  # Cut off by the kill.
                continue
            if 'loss' in values:
                found[values['step']] = values[key]
    return found


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    """The weights that ``last_checkpoint`` leads to."""
    path = (work_dir / 'last_checkpoint').read_text()
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def difference(work_dir: Path, reference: Path) -> str | None:
    """What differs between two finished runs, to the last bit; None if nothing does."""
    ours, theirs = scalars(work_dir), scalars(reference)
    wrong = [step for step in theirs if ours.get(step) != theirs[step]]
    if len(theirs) < ITERATIONS or len(ours) != len(theirs) or wrong:
        return f'{len(ours)} of {len(theirs)} losses logged, different at iterations {wrong[:5]}'
    ours, theirs = weights(work_dir), weights(reference)
    wrong = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    return f'other weights at the end: {wrong[:3]}' if wrong or ours.keys() != theirs.keys() else None
