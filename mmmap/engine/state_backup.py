"""Keeps buffers and moving averages from before a training step, to restore them if the step is skipped."""

from collections.abc import Iterable, Iterator

import torch
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim.swa_utils import AveragedModel

# Averages in a model may start as copies of its weights. They change only in the second iteration.
_ITERATIONS_TO_LEARN = 2
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _slots(module: nn.Module, parameters: bool, buffers: bool) -> Iterator[tuple[nn.Module, str]]:
    """The owner and the name of each tensor of a module. They find the tensor even if it was replaced."""
    for owner in module.modules():
        if parameters:
            yield from ((owner, name) for name, _ in owner.named_parameters(recurse=False))
        if buffers:
            yield from ((owner, name) for name, _ in owner.named_buffers(recurse=False))


class StateBackup:
    """A copy of the buffers and moving averages of a model from before a step.

    It has every buffer (running statistics of batch norm, queues, counters) and the weights of every
    ``BaseAveragedModel`` and ``AveragedModel`` in the model. It also has weights that no optimizer trains and that
    change in the first two iterations. Without any of these it costs nothing.

    Args:
        model (nn.Module): The model that is trained. It may be wrapped.
        trained (Iterable[Tensor]): The parameters that an optimizer trains.
        averages (Iterable[nn.Module]): Averaged models outside the model. Defaults to ().
    """

    def __init__(self, model: nn.Module, trained: Iterable[Tensor], averages: Iterable[nn.Module] = ()) -> None:
        slots = list(_slots(model, parameters=False, buffers=True))
        for module in model.modules():
            if isinstance(module, (BaseAveragedModel, AveragedModel)):
                slots += _slots(module, parameters=True, buffers=False)
        for module in averages:
            slots += _slots(module, parameters=True, buffers=True)
        self._slots = list({(id(owner), name): (owner, name) for owner, name in slots}.values())
        known = {id(param) for param in trained} | {id(getattr(*slot)) for slot in self._slots}
        self._frozen = [slot for slot in _slots(model, True, False) if id(getattr(*slot)) not in known]
        if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
            # FSDP replaces whole weights by shards and back.
            self._frozen = []
        self._fingerprint = torch.empty(0)
        self._iterations = 0
        self._kept: list[tuple[nn.Module, str, Tensor]] = []
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def learn(self) -> None:
        """Find the weights that change although no optimizer trains them. Call it before each iteration."""
        if not self._frozen:
            return
        if self._iterations == 0:
            self._fingerprint = self._fingerprints()
        elif self._iterations == _ITERATIONS_TO_LEARN:
            changed = self._fingerprints().ne(self._fingerprint).tolist()
            self._slots += [slot for slot, differs in zip(self._frozen, changed, strict=True) if differs]
            self._frozen = []
        self._iterations += 1

    def _fingerprints(self) -> Tensor:
        """The sum of the bits of each frozen weight. A copy of all weights may not fit into memory."""
        tensors = [getattr(*slot).detach() for slot in self._frozen]
        return torch.stack([x.view(_INTEGERS[x.element_size()]).sum().to(tensors[0].device) for x in tensors])

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the present state."""
        self._kept = []
        for owner, name in self._slots:
            tensor = getattr(owner, name, None)
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                self._kept.append((owner, name, tensor))
        now = [tensor for _, _, tensor in self._kept]
        if not now:
            return
        if len(now) != len(self._copies) or any(map(_differ, now, self._copies)):
            self._copies = [torch.empty_like(tensor) for tensor in now]
        torch._foreach_copy_(self._copies, now)

    def became_non_finite(self) -> bool:
        """Whether a value is not finite now that was finite in the copy."""
        pairs = [(tensor, copy) for (_, _, tensor), copy in zip(self._kept, self._copies, strict=True)]
        return any(x.is_floating_point() and bool((~x.isfinite() & y.isfinite()).any()) for x, y in pairs)

    @torch.no_grad()
    def restore(self, condition: Tensor | None = None) -> None:
        """Restore the copied state in place.

        ``condition``, a () bool on the device of the tensors, tells whether to restore. None always restores, replaced
        tensors too.
        """
        for (owner, name, before), copy in zip(self._kept, self._copies, strict=True):
            if condition is None:
                before.copy_(copy)
                if getattr(owner, name) is not before:
                    setattr(owner, name, before)
                continue
            now = getattr(owner, name)
            # A tensor of another shape, such as a cache that grew, is no statistic.
            if not _differ(now, copy):
                torch.where(condition.to(now.device, non_blocking=True), copy, now, out=now)


def _differ(one: Tensor, other: Tensor) -> bool:
    return one.shape != other.shape or one.dtype != other.dtype or one.device != other.device
