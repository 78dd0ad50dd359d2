"""What changes in a training step beside the weights and the optimizer, kept for the case that the step is skipped."""

from collections.abc import Iterable, Iterator

import torch
from mmengine.model import BaseAveragedModel
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim.swa_utils import AveragedModel

# A model's own averages may start as copies of its weights, so that the first iteration leaves them as they are.
_ITERATIONS_TO_LEARN = 2
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _slots(module: nn.Module, parameters: bool, buffers: bool) -> Iterator[tuple[nn.Module, str]]:
    """Each tensor of a module as its owner and its name there, which finds it even if it was replaced."""
    for owner in module.modules():
        if parameters:
            yield from ((owner, name) for name, _ in owner.named_parameters(recurse=False))
        if buffers:
            yield from ((owner, name) for name, _ in owner.named_buffers(recurse=False))


class MovingState:
    """Buffers and moving averages of a model, as they were before a step.

    These are every buffer (running statistics of batch norm, queues, counters), the weights of every
    ``BaseAveragedModel`` and ``AveragedModel`` in the model, and other weights that no optimizer trains and that
    change nevertheless, which the first two iterations show. Models without any of them pay nothing.

    Args:
        model (nn.Module): The model that is trained; it may be wrapped.
        trained (Iterable[Tensor]): The parameters that an optimizer trains.
        averages (Iterable[nn.Module]): Averaged models outside of the model, to be kept as well. Defaults to ().
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
            # It swaps shares and whole weights in and out.
            self._frozen = []
        self._fingerprint: Tensor | None = None
        self._iterations = 0
        self._kept: list[tuple[nn.Module, str, Tensor]] = []
        self._copies: list[Tensor] = []

    @torch.no_grad()
    def learn(self) -> None:
        """Find what changes among the weights that no optimizer trains; call it before each iteration."""
        if not self._frozen:
            return
        if self._iterations == 0:
            self._fingerprint = self._fingerprints()
        elif self._iterations == _ITERATIONS_TO_LEARN:
            changed = (self._fingerprints() != self._fingerprint).tolist()
            self._slots += [slot for slot, differs in zip(self._frozen, changed, strict=True) if differs]
            self._frozen, self._fingerprint = [], None
        self._iterations += 1

    def _fingerprints(self) -> Tensor:
        """A sum of the bits of each frozen weight: a copy of all of them may not fit the memory."""
        tensors = [getattr(*slot).detach() for slot in self._frozen]
        return torch.stack([x.view(_INTEGERS[x.element_size()]).sum().to(tensors[0].device) for x in tensors])

    @torch.no_grad()
    def keep(self) -> None:
        """Keep what is there now."""
        found = [(owner, name, getattr(owner, name, None)) for owner, name in self._slots]
        self._kept = [entry for entry in found if isinstance(entry[2], Tensor) and entry[2].layout is torch.strided]
        now = [tensor for _, _, tensor in self._kept]
        if not now:
            return
        if len(now) != len(self._copies) or any(map(_differ, now, self._copies)):
            self._copies = [torch.empty_like(tensor) for tensor in now]
        torch._foreach_copy_(self._copies, now)

    def is_spoilt(self) -> bool:
        """Whether something is not finite now and was when it was kept."""
        pairs = [(tensor, copy) for (_, _, tensor), copy in zip(self._kept, self._copies, strict=True)]
        return any(x.is_floating_point() and bool((~x.isfinite() & y.isfinite()).any()) for x, y in pairs)

    @torch.no_grad()
    def restore(self, condition: Tensor | None = None) -> None:
        """Put back what was kept; tensors keep their addresses.

        Args:
            condition (Tensor, optional): () bool on the device of the tensors: whether to do so. None puts it back
                in any case, and undoes replaced tensors too. Defaults to None.
        """
        for (owner, name, before), copy in zip(self._kept, self._copies, strict=True):
            if condition is None:
                before.copy_(copy)
                if getattr(owner, name) is not before:
                    setattr(owner, name, before)
                continue
            now = getattr(owner, name)
            # A cache that grew is not a statistic.
            if not _differ(now, copy):
                torch.where(condition.to(now.device, non_blocking=True), copy, now, out=now)


def _differ(one: Tensor, other: Tensor) -> bool:
    return one.shape != other.shape or one.dtype != other.dtype or one.device != other.device
