"""Optimizer steps that do nothing where a loss or a gradient is not finite."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from .moving_state import MovingState

# Wrappers of libraries that keep the gradients to themselves.
_UNGUARDED = ('DeepSpeedOptimWrapper', 'ColossalAIOptimWrapper', 'ApexOptimWrapper')


def unguarded(optim_wrapper: object) -> str | None:
    """Name the optimizer wrapper whose steps cannot be guarded.

    Args:
        optim_wrapper (object): That of a run.

    Returns:
        str | None: Its class; None if it can be guarded.
    """
    wrappers = _wrappers(optim_wrapper)
    names = {type(wrapper): [cls.__name__ for cls in type(wrapper).__mro__] for wrapper in wrappers}
    for kind, mro in names.items():
        if 'OptimWrapper' not in mro or any(name in mro for name in _UNGUARDED):
            return kind.__name__
    return None


def _wrappers(optim_wrapper: Any) -> list:
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]


def _skips_on_device(optimizer: Optimizer) -> bool:
    """Whether ``step()`` leaves everything alone where the tensor ``optimizer.found_inf`` is 1, as GradScaler has it.

    So do the fused kernels of torch. A subclass may do more in its step, so it does not count.
    """
    return type(optimizer) in (Adam, AdamW, SGD, Adagrad) and all(
        group.get('fused') for group in optimizer.param_groups
    )


def _scaler(wrapper: OptimWrapper) -> Any:
    """The GradScaler of a wrapper of mixed precision, which skips steps by itself; None if there is none at work."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def scale_may_fall(optim_wrapper: Any) -> bool:
    """Whether gradients may be infinite because of a loss scale that falls with each skipped step.

    Args:
        optim_wrapper (OptimWrapper | OptimWrapperDict): That of a run. Reading the scale waits for the device.
    """
    for wrapper in _wrappers(optim_wrapper):
        scaler = _scaler(wrapper)
        # AmpOptimWrapper has a number there if the scale is to stay what it is; nothing public says so.
        if scaler is not None and getattr(wrapper, '_scale_update_param', None) is None and scaler.get_scale() > 1:
            return True
    return False


def _largest(gradients: list[Tensor]) -> Tensor:
    """The largest magnitude in each gradient, NaN if it holds one; it does not overflow, as a sum of squares does."""
    norms = torch._foreach_norm(gradients, ord=math.inf)
    if len({(norm.device, norm.dtype) for norm in norms}) > 1:
        norms = [norm.to(norms[0].device, torch.float64, non_blocking=True) for norm in norms]
    return torch.stack(norms)


def _device_type(tensors: list[Tensor]) -> str:
    """'cpu' if there are none, 'mixed' if they are on devices of several types."""
    types = {device.type for device in {tensor.device for tensor in tensors}} or {'cpu'}
    return types.pop() if len(types) == 1 else 'mixed'


def _send_to_host(values: Tensor) -> tuple[Tensor, Any]:
    """Start a copy to the host; also an event to wait for before it is read, None if there is nothing to wait for."""
    if not values.is_cuda:
        return values, None
    on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    on_host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return on_host, event


@contextmanager
def _without_step(optimizer: Optimizer) -> Iterator[None]:
    """Let ``optimizer.step()`` do nothing for a while."""
    own = vars(optimizer).get('step')
    optimizer.step = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del optimizer.step
        if own is not None:
            optimizer.step = own


@dataclass
class CheckedStep:
    """What the guard saw in one step of an optimizer. Reading it waits for the device to have made the step.

    Args:
        params (list[Tensor]): The parameters with a gradient.
        values (Tensor, optional): (1 + P + M) on the host: 1 if the step was skipped, the largest magnitude in each
            gradient, and 1 for each loss that is finite. None if the host knew that all was finite.
        event (torch.cuda.Event, optional): When ``values`` has arrived.
    """

    params: list[Tensor]
    values: Tensor | None = None
    event: Any = None

    @property
    def skipped(self) -> bool:
        """Whether the step changed nothing."""
        if self.event is not None:
            self.event.synchronize()
        return self.values is not None and bool(self.values[0] != 0)

    def bad_gradients(self) -> list[Tensor]:
        """The parameters whose gradient was not finite."""
        if not self.skipped:
            return []
        finite = self.values[1 : 1 + len(self.params)].isfinite().tolist()
        return [param for param, good in zip(self.params, finite, strict=True) if not good]

    def bad_losses(self) -> int:
        """How many losses of this process were not finite."""
        return int((~self.values[1 + len(self.params) :].isfinite()).sum()) if self.skipped else 0


@dataclass
class _Pending:
    """Of a wrapper: factors of the losses since its last step, 1 or NaN where one was not finite; if it made a step."""

    factors: list[Tensor] = field(default_factory=list)
    stepped: bool = False


class StepGuard:
    """Keep steps in which a loss or a gradient is not finite from changing anything.

    Such a step changes no weight, no state of the optimizer, no buffer and no moving average in the model, to the
    last bit. Steps in which all is finite compute what they would without the guard.

    A loss that is not finite is multiplied by NaN, so that gradients are NaN wherever it reaches, and, averaged by
    DDP, on every process: all decide alike, without a message of their own. Gradients are looked at before they are
    clipped. With gradients accumulated over several iterations one bad loss skips their common step, and what the
    iterations changed is put back as it was before the first of them.

    On a GPU the host does not wait: torch's fused optimizers and GradScaler skip by a flag on the device. For other
    optimizers, for FSDP and in the first step of any, the host reads the flag before the step.

    Args:
        model (nn.Module): The model, which may be wrapped.
        optim_wrapper (OptimWrapper | OptimWrapperDict): Its optimizer wrapper, or several; their ``backward`` and
            ``step`` are replaced.
        averages (Iterable[nn.Module]): Averaged models outside of the model, put back like those in it. Defaults to ().
    """

    def __init__(
        self, model: nn.Module, optim_wrapper: OptimWrapper | OptimWrapperDict, averages: Iterable[nn.Module] = ()
    ) -> None:
        wrappers = _wrappers(optim_wrapper)
        # An optimizer may have frozen parameters, too.
        trained = [
            p for w in wrappers for group in w.optimizer.param_groups for p in group['params'] if p.requires_grad
        ]
        self._state = MovingState(model, trained, averages)
        self._steps: list[CheckedStep] = []
        # Whether an iteration has begun and its step, maybe after some more iterations, is to come.
        self.amid_steps = False
        # DDP has averaged the gradients when a step comes. FSDP leaves each process a share of them.
        self._same_gradients = isinstance(model, DistributedDataParallel)
        several = torch_dist.is_available() and torch_dist.is_initialized() and torch_dist.get_world_size() > 1
        self._ask_others = several and not self._same_gradients
        for wrapper in wrappers:
            self._replace(wrapper, _Pending())

    def _replace(self, wrapper: OptimWrapper, pending: _Pending) -> None:
        backward, step = wrapper.backward, wrapper.step

        def guarded_backward(loss: Tensor, **kwargs: Any) -> None:
            factor = loss.detach() * 0 + 1
            pending.factors.append(factor if factor.ndim == 0 else factor.mean())
            backward(loss * factor, **kwargs)

        def guarded_step(**kwargs: Any) -> None:
            self._step(wrapper, pending, partial(step, **kwargs))

        wrapper.backward, wrapper.step = guarded_backward, guarded_step

    def start_iteration(self) -> None:
        """Keep what a forward pass may change. Call it before each iteration."""
        self._steps = []
        self._state.learn()
        if not self.amid_steps:
            self._state.keep()
            self.amid_steps = True

    def steps(self) -> list[CheckedStep]:
        """What was seen since :meth:`start_iteration`: one entry a step, none while gradients are accumulated."""
        return self._steps

    def skipped(self) -> bool:
        """Whether a step of this iteration was skipped; waits for the device to have made it."""
        return any(step.skipped for step in self._steps)

    def mend_before_checkpoint(self) -> None:
        """While gradients are accumulated, put back now what the end of the accumulation would put back."""
        if self.amid_steps and self._state.is_spoilt():
            self._state.restore()

    def _step(self, wrapper: OptimWrapper, pending: _Pending, step: Callable) -> None:
        with torch.no_grad():
            checked, skip = self._check(wrapper, pending)
        optimizer = wrapper.optimizer
        if skip is True:
            # GradScaler has to learn of it and lowers its scale.
            if _scaler(wrapper) is not None:
                with _without_step(optimizer):
                    step()
            self._state.restore()
        elif skip is False:
            step()
            pending.stepped = True
        else:
            # A GradScaler sets it by itself, for the same gradients; without fused kernels it leaves the step out.
            if _scaler(wrapper) is None:
                optimizer.found_inf = skip
            try:
                step()
            finally:
                vars(optimizer).pop('found_inf', None)
            self._state.restore(skip.bool())
        pending.factors = []
        self.amid_steps = False
        self._steps.append(checked)

    def _check(self, wrapper: OptimWrapper, pending: _Pending) -> tuple[CheckedStep, bool | Tensor]:
        """Whether the coming step is to be skipped: a bool if the host decides, else a () tensor of 0 or 1."""
        params, gradients = [], []
        for group in wrapper.optimizer.param_groups:
            for param in group['params']:
                gradient = param.grad
                if gradient is not None:
                    gradient = gradient.coalesce().values() if gradient.is_sparse else gradient
                    # FSDP leaves some processes nothing of a parameter.
                    if gradient.numel():
                        params.append(param)
                        gradients.append(gradient)
        device_type = _device_type(gradients)
        if device_type == 'cpu' and not self._ask_others and self._clearly_finite(gradients, pending.factors):
            return CheckedStep(params), False
        device = wrapper.optimizer.param_groups[0]['params'][0].device
        largest = _largest(gradients) if gradients else torch.zeros(0, device=device)
        scaler = _scaler(wrapper)
        if scaler is None and not wrapper.clip_grad_kwargs:
            # Optimizers square it, and keep an infinite square for good. A scaler decides for itself.
            largest = largest.to(torch.promote_types(largest.dtype, torch.float32)).square()
        found = torch.cat([largest, *(factor.to(largest).view(1) for factor in pending.factors)])
        # A loss of one process must not tell it apart from the others, nor the guard from a scaler.
        losses_decide = self._ask_others or not (self._same_gradients or scaler)
        flag = (found if losses_decide else largest).isfinite().all().logical_not().float()
        if self._ask_others:
            torch_dist.all_reduce(flag, torch_dist.ReduceOp.MAX)
        values = torch.cat([flag.view(1), found])
        by_device = device_type == 'cuda' and (scaler is not None or _skips_on_device(wrapper.optimizer))
        # In its first step an optimizer makes its state, on the device with numbers of no meaning if it is skipped.
        if not by_device or self._ask_others or not pending.stepped:
            values = values.cpu()
            skip = bool(values[0])
            if skip and scaler is not None and gradients:
                # Each process of FSDP has a scaler of its own, which looks at its share alone.
                gradients[0].fill_(math.nan)
            return CheckedStep(params, values), skip
        on_host, event = _send_to_host(values)
        return CheckedStep(params, on_host, event), flag

    @staticmethod
    def _clearly_finite(gradients: list[Tensor], factors: list[Tensor]) -> bool:
        """A quick look on a CPU: False if something is not finite, or if a sum of squares overflows."""
        norms = torch._foreach_norm(gradients) if gradients else []
        return not norms or math.isfinite(torch.stack([*norms, *factors]).sum())
