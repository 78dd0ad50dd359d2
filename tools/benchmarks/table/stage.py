"""One training of a row: its files, settings and results."""

import json
import pprint
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from mmmap.engine.checkpoint_files import AtomicLocalBackend
from mmmap.utils.safe_load import load
from mmmap.visualization import read_scalars

_METRICS = {'finetune': 'accuracy/top1', 'linear': 'accuracy/top1'}
_KNN = re.compile(r'knn/accuracy: ([\d.]+)')
_MAX_POINTS = 200  # In a loss curve of a result file
# Settings that do not change the result, or are compared separately (images by their hash)
_NO_RESULT = {
    'num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'env_cfg', 'default_hooks', 'visualizer',
    'vis_backends', 'log_level', 'log_processor', 'checkpoint', 'ann_file', 'data_root', 'scan_backend',
}  # fmt: skip


class StageError(Exception):
    """A stage that failed. The message has the last line and the path of its log."""


class StageStopped(StageError):
    """A stage that a signal stopped and that saved its state."""


@dataclass
class Stage:
    """One training of a row and seed, with its files.

    Args:
        name (str): 'pretrain', 'finetune', 'linear' or 'knn'.
        cfg (Config): The composed config.
        folder (Path): Folder of the row and seed.
        facts (dict): What the report tells of it.
        tested (Path, optional): For kNN: the checkpoint.
    """

    name: str
    cfg: Config
    folder: Path
    facts: dict = field(default_factory=dict)
    tested: Path | None = None

    @property
    def epochs(self) -> int:
        """Epochs of the training; kNN has none."""
        return 0 if self.name == 'knn' else self.cfg.train_cfg.max_epochs

    @property
    def config_file(self) -> Path:
        """Path of the composed config."""
        return self.folder / f'{self.name}.py'

    @property
    def log_file(self) -> Path:
        """Path of the output."""
        return self.folder / f'{self.name}.log'

    @property
    def result_file(self) -> Path:
        """Path of the result; it exists once the stage is done."""
        return self.folder / f'{self.name}.json'

    @property
    def work_dir(self) -> Path:
        """Work directory of the training."""
        return self.folder / self.name

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint."""
        return self.work_dir / f'epoch_{self.epochs}.pth'

    def result(self) -> dict:
        """The result of the finished stage."""
        return json.loads(self.result_file.read_text())

    def write_config(self) -> None:
        """Write the composed config."""
        lines = [f'{key} = {pprint.pformat(value, width=120, compact=True, sort_dicts=False)}\n'
                 for key, value in self.cfg.to_dict().items()]  # fmt: skip
        AtomicLocalBackend().put_text(''.join(lines), self.config_file)

    def has_progress(self) -> bool:
        """Whether the files of this stage hold any work."""
        return self.result_file.is_file() or any(self.work_dir.glob('*.pth'))

    def difference(self) -> str | None:
        """The first difference between this stage and the one whose files exist.

        Returns:
            str | None: One line with the setting and both values; None if nothing that matters differs.
        """
        if not self.config_file.is_file():
            return None
        return first_difference(_plain(Config.fromfile(self.config_file)), _plain(self.cfg))

    def remove(self) -> None:
        """Remove all files, the result first."""
        for path in (self.result_file, self.config_file, self.log_file):
            path.unlink(missing_ok=True)
        if self.work_dir.exists():
            shutil.rmtree(self.work_dir)


def _plain(cfg: Config) -> dict:
    return json.loads(json.dumps(cfg.to_dict(), default=repr))


def first_difference(old: object, new: object, where: str = '') -> str | None:
    """Name the first setting in which two configs differ, except those that cannot change a result.

    Args:
        old (object): A config, or a part of it, of JSON's types.
        new (object): Another.
        where (str): Key of that part.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in _NO_RESULT:
                found = first_difference(old.get(key), new.get(key), f'{where}.{key}' if where else key)
                if found:
                    return found
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = (first_difference(*pair, f'{where}.{i}') for i, pair in enumerate(zip(old, new, strict=True)))
        return next(filter(None, parts), None)
    shown = [text if len(text) < 60 else f'{text[:57]}...' for text in (repr(old), repr(new))]
    return None if old == new else f'{where} was {shown[0]}, is {shown[1]}'


def collect(stage: Stage) -> dict:
    """Read the result of a finished stage.

    Args:
        stage (Stage): The stage.

    Returns:
        dict: Its facts and ``accuracy`` (percent, at the end of the schedule), ``accuracies`` and ``losses`` as lists
        of [epoch, value], ``seconds`` (of the iterations, without validation and start), ``epochs``, ``iterations``.

    Raises:
        StageError: If the accuracy of the last epoch, or the last checkpoint, is missing.
    """
    if stage.name == 'knn':
        found = _KNN.findall(stage.log_file.read_text())
        if not found:
            raise StageError(f'knn: no knn/accuracy in its log (log: {stage.log_file})')
        return stage.facts | dict(accuracy=float(found[-1]))
    if not stage.checkpoint.is_file():
        raise StageError(f'{stage.name}: ended without {stage.checkpoint} (log: {stage.log_file})')
    iterations = load(stage.checkpoint, 'cpu', mmap=True)['meta']['iter']
    scalars = read_scalars(stage.work_dir)
    result = stage.facts | dict(epochs=stage.epochs, iterations=iterations, accuracy=None, accuracies=[])
    per_epoch = iterations / stage.epochs
    losses = sorted(zip(*scalars.get('loss', ((), ())), strict=True))
    step = -(-len(losses) // _MAX_POINTS) or 1
    result['losses'] = [[round(at / per_epoch, 4), loss] for at, loss in losses[::-1][::step][::-1]]
    result['seconds'] = round(_seconds(scalars, iterations), 2)
    metric = _METRICS.get(stage.name)
    if metric is not None:
        result['accuracies'] = [list(pair) for pair in sorted(zip(*scalars.get(metric, ((), ())), strict=True))]
        if not result['accuracies'] or result['accuracies'][-1][0] != stage.epochs:
            raise StageError(f'{stage.name}: no {metric} of epoch {stage.epochs} (log: {stage.log_file})')
        result['accuracy'] = result['accuracies'][-1][1]
    return result


def _seconds(scalars: dict, iterations: int) -> float:
    """Time of the iterations, from their average time at each line of the log."""
    times, total, before, value = sorted(zip(*scalars.get('time', ((), ())), strict=True)), 0.0, 0, 0.0
    for at, value in times:
        total += (at - before) * value
        before = at
    return total + max(0, iterations - before) * value
