"""Reports skipped steps, counts them, and tells whether there are too many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.dist import all_gather_object, get_rank
from torch import Tensor, nn

from .batch_report import batch_files, join_limited, non_finite_samples
from .step_guard import CheckedStep


@dataclass
class SkipReport:
    """What one process knows about a skipped step.

    Args:
        rank (int): The rank of the process.
        losses (list[str]): Its losses that were not finite, as ``name=value``.
        gradients (list[str]): The parameters whose gradients were not finite.
        files (str): The files of its batch, those of samples with non-finite inputs first.
    """

    rank: int
    losses: list[str]
    gradients: list[str]
    files: str


def _bad_losses(outputs: dict) -> list[str]:
    found = []
    for name, value in outputs.items():
        try:
            number = float(value.detach() if isinstance(value, Tensor) else value)
        # It is no number, or a CUDA graph has overwritten it.
        except (TypeError, ValueError, RuntimeError):
            continue
        if number - number != 0:
            found.append(f'{name}={number}')
    return found


def gather_reports(model: nn.Module, steps: Sequence[CheckedStep], batches: list, outputs: dict) -> list[SkipReport]:
    """Collect the reports of all processes about a skipped step. All processes call it.

    ``batches`` are those of the step, several if gradients are accumulated; ``outputs`` are the losses of the last one.
    """
    names = {id(param): name.removeprefix('module.') for name, param in model.named_parameters()}
    losses = []
    if any(step.bad_losses() for step in steps):
        losses = _bad_losses(outputs) or ['a loss']
    files = []
    for batch in batches:
        named = batch_files(batch)
        spoilt = [i for i in non_finite_samples(batch) if i < len(named)]
        files += [(0, f'{named[i]} (its inputs are not finite)') for i in spoilt] or [(1, name) for name in named]
    report = SkipReport(
        rank=get_rank(),
        losses=losses,
        gradients=[names.get(id(param), 'a parameter') for step in steps for param in step.bad_gradients()],
        files=join_limited(name for _, name in sorted(files, key=lambda entry: entry[0])),
    )
    return all_gather_object(report)


def decisive_reports(reports: list[SkipReport]) -> list[SkipReport]:
    """The reports with a loss that is not finite; if there are none, those with a gradient."""
    return (
        [report for report in reports if report.losses] or [report for report in reports if report.gradients] or reports
    )


def describe_skip(reports: list[SkipReport]) -> str:
    """Say in one line what was not finite, on which process and for which files."""
    first, *others = decisive_reports(reports)
    places = join_limited(f'rank {report.rank}' for report in (first, *others))
    files = first.files or 'not known'
    if first.losses:
        return f'{join_limited(first.losses)} on {places}, files: {files}'
    if others:
        # DDP has averaged the gradients, so that they do not tell the process.
        files = join_limited(f'{report.files or "not known"} (rank {report.rank})' for report in (first, *others))
    return f'the gradient of {join_limited(first.gradients, 2)} on {places}, files: {files}'


class SkipCount:
    """Counts skipped steps: in a row, in an epoch and in total.

    Args:
        max_in_a_row (int): Too many steps in a row.
        max_share (float): The allowed share of the steps of an epoch. At least ``max_in_a_row`` steps are allowed.
    """

    def __init__(self, max_in_a_row: int, max_share: float) -> None:
        self.max_in_a_row = max_in_a_row
        self.max_share = max_share
        self.total = 0
        self._in_a_row = self._in_epoch = self._epoch = 0

    def add(self, skipped: bool) -> None:
        """Count a step."""
        self.total += skipped
        self._in_epoch += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0

    def too_many(self, epoch: int, steps: float) -> str | None:
        """Say which count is too large, None if none is. ``steps`` is the number of steps of an epoch."""
        if epoch != self._epoch:
            self._epoch, self._in_epoch = epoch, 0
        if self._in_a_row >= self.max_in_a_row:
            return f'{self._in_a_row} steps in a row were skipped'
        if self._in_epoch > max(self.max_in_a_row, self.max_share * steps):
            return f'{self._in_epoch} of the {steps:.0f} steps of an epoch were skipped'
        return None


def named_tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    """List the tensors in a nested state dict, each with its dotted key."""
    if isinstance(value, Tensor):
        return [(name, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [pair for key, item in items for pair in named_tensors(item, f'{name}.{key}' if name else str(key))]
