"""What is said of skipped steps, how many there were, and whether that is too many."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.dist import all_gather_object, get_rank
from torch import Tensor, nn

from .batch_report import batch_files, join_limited, spoilt_samples
from .guard import CheckedStep


@dataclass
class Blame:
    """What one process knows of a skipped step.

    Args:
        rank (int): Of the process.
        losses (list[str]): Its losses that were not finite, as ``name=value``.
        gradients (list[str]): The parameters whose gradients were not finite.
        files (str): Those of its batch, or of the samples in it whose inputs are not finite.
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
        # What is no number, or, of a CUDA graph, has been overwritten.
        except (TypeError, ValueError, RuntimeError):
            continue
        if number - number != 0:
            found.append(f'{name}={number}')
    return found


def find_blame(model: nn.Module, steps: Sequence[CheckedStep], batches: list, outputs: dict) -> list[Blame]:
    """Ask every process what it knows of a skipped step; all of them have to call it.

    Args:
        model (nn.Module): Names the parameters.
        steps (Sequence[CheckedStep]): What the guard saw.
        batches (list): The batches of the step, several if gradients are accumulated.
        outputs (dict): The losses of the last of them, by name.

    Returns:
        list[Blame]: One a process.
    """
    names = {id(param): name.removeprefix('module.') for name, param in model.named_parameters()}
    losses = []
    if any(step.bad_losses() for step in steps):
        losses = _bad_losses(outputs) or ['a loss']
    files = []
    for batch in batches:
        named = batch_files(batch)
        spoilt = [i for i in spoilt_samples(batch) if i < len(named)]
        files += [(0, f'{named[i]} (its inputs are not finite)') for i in spoilt] or [(1, name) for name in named]
    blame = Blame(
        rank=get_rank(),
        losses=losses,
        gradients=[names.get(id(param), 'a parameter') for step in steps for param in step.bad_gradients()],
        files=join_limited(name for _, name in sorted(files, key=lambda entry: entry[0])),
    )
    return all_gather_object(blame)


def culprits(blames: list[Blame]) -> list[Blame]:
    """Those whose loss was not finite; all if it was a gradient alone."""
    return [blame for blame in blames if blame.losses] or [blame for blame in blames if blame.gradients] or blames


def describe(blames: list[Blame]) -> str:
    """Say in one line what was not finite, where, and of which files.

    Args:
        blames (list[Blame]): Of every process.
    """
    first, *others = culprits(blames)
    places = join_limited(f'rank {blame.rank}' for blame in (first, *others))
    files = first.files or 'not known'
    if first.losses:
        return f'{join_limited(first.losses)} on {places}, files: {files}'
    if others:
        # What DDP has averaged does not tell whose it was.
        files = join_limited(f'{blame.files or "not known"} (rank {blame.rank})' for blame in (first, *others))
    return f'the gradient of {join_limited(first.gradients, 2)} on {places}, files: {files}'


class SkipCount:
    """Counts skipped steps: in a row, in an epoch, in all.

    Args:
        max_in_a_row (int): How many in a row are too many.
        max_share (float): Which share of the steps of an epoch is too much, if it is more than ``max_in_a_row``.
    """

    def __init__(self, max_in_a_row: int, max_share: float) -> None:
        self.max_in_a_row = max_in_a_row
        self.max_share = max_share
        self.total = 0
        self._in_a_row = self._in_epoch = self._epoch = 0

    def add(self, skipped: bool) -> None:
        """Take note of a step."""
        self.total += skipped
        self._in_epoch += skipped
        self._in_a_row = self._in_a_row + 1 if skipped else 0

    def too_many(self, epoch: int, steps: float) -> str | None:
        """Say which number is too large.

        Args:
            epoch (int): The present one.
            steps (float): How many steps it has.

        Returns:
            str | None: None if there is no such number.
        """
        if epoch != self._epoch:
            self._epoch, self._in_epoch = epoch, 0
        if self._in_a_row >= self.max_in_a_row:
            return f'{self._in_a_row} steps in a row were skipped'
        if self._in_epoch > max(self.max_in_a_row, self.max_share * steps):
            return f'{self._in_epoch} of the {steps:.0f} steps of an epoch were skipped'
        return None


def named_tensors(value: Any, name: str) -> list[tuple[str, Tensor]]:
    """List the tensors in a state dict and what is in it, with their places as names."""
    if isinstance(value, Tensor):
        return [(name, value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [pair for key, item in items for pair in named_tensors(item, f'{name}.{key}' if name else str(key))]
