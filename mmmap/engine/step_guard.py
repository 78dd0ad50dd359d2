"""Skips optimizer steps if a loss or a gradient is not finite."""

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

from .state_backup import StateBackup

# The libraries of these wrappers hide the gradients.
_UNGUARDED = {'DeepSpeedOptimWrapper', 'ColossalAIOptimWrapper', 'ApexOptimWrapper'}


def unguarded(optim_wrapper: Any) -> str | None:
    """The class name of the first optimizer wrapper of a run whose steps cannot be guarded; None if all can be."""
    for kind in map(type, _wrappers(optim_wrapper)):
        names = {cls.__name__ for cls in kind.__mro__}
        if 'OptimWrapper' not in names or names & _UNGUARDED:
            return kind.__name__
    return None


def _wrappers(optim_wrapper: Any) -> list:
    return list(optim_wrapper.values()) if isinstance(optim_wrapper, OptimWrapperDict) else [optim_wrapper]


def _skips_on_device(optimizer: Optimizer) -> bool:
    """Whether ``step()`` changes nothing if the tensor ``optimizer.found_inf``, which GradScaler uses, is 1.

    The fused kernels of torch do so. A subclass may do more in its step, so it is excluded.
    """
    return type(optimizer) in (Adam, AdamW, SGD, Adagrad) and all(
        group.get('fused') for group in optimizer.param_groups
    )


def _scaler(wrapper: OptimWrapper) -> Any:
    """The GradScaler of a wrapper, which skips steps itself; None if there is none or it is disabled."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def scale_may_fall(optim_wrapper: Any) -> bool:
    """Whether gradients may be infinite because of a loss scale that falls with each skipped step.

    Reading the scale waits for the device.
    """
    for wrapper in _wrappers(optim_wrapper):
        scaler = _scaler(wrapper)
        # In AmpOptimWrapper this private attribute is a number if the scale is fixed.
        if scaler is not None and getattr(wrapper, '_scale_update_param', None) is None and scaler.get_scale() > 1:
            return True
    return False


def _largest(gradients: list[Tensor]) -> Tensor:
    """The largest magnitude in each gradient, NaN if there is one. Unlike a sum of squares it does not overflow."""
    norms = list(torch._foreach_norm(gradients, ord=math.inf))
    if len({(norm.device, norm.dtype) for norm in norms}) > 1:
        norms = [norm.to(norms[0].device, torch.float64, non_blocking=True) for norm in norms]
    return torch.stack(norms)


def _device_type(tensors: list[Tensor]) -> str:
    """The device type of tensors: 'cpu' without tensors, 'mixed' if there are several types."""
    types = {device.type for device in {tensor.device for tensor in tensors}} or {'cpu'}
    return types.pop() if len(types) == 1 else 'mixed'


def _send_to_host(values: Tensor) -> tuple[Tensor, Any]:
    """Start a copy to the host; returns it and the event to wait for before reading, None for no event."""
    if not values.is_cuda:
        return values, None
    on_host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    on_host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return on_host, event


@contextmanager
def _without_step(optimizer: Optimizer) -> Iterator[None]:
    """Make ``optimizer.step()`` do nothing within the context."""
    attributes = vars(optimizer)
    own = attributes.get('step')
    attributes['step'] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del attributes['step']
        if own is not None:
            attributes['step'] = own


@dataclass
class CheckedStep:
    """The findings of the guard in one step of an optimizer. Reading them waits until the device has made the step.

    Args:
        params (list[Tensor]): The P parameters with a gradient.
        values (Tensor, optional): (1 + P + M) on the host: 1 if the step was skipped, the largest magnitude in each
            gradient, and 1 for each of M losses that is finite. None if the host knew that all was finite.
        event (torch.cuda.Event, optional): Tells that ``values`` has arrived.
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
        if self.values is None or not self.skipped:
            return []
        finite = self.values[1 : 1 + len(self.params)].isfinite().tolist()
        return [param for param, good in zip(self.params, finite, strict=True) if not good]

    def bad_losses(self) -> int:
        """How many losses of this process were not finite."""
        if self.values is None or not self.skipped:
            return 0
        return int((~self.values[1 + len(self.params) :].isfinite()).sum())


@dataclass
class _Pending:
    """For a wrapper: a factor for each loss since its last step, 1 or NaN if not finite; whether it has made a step."""

    factors: list[Tensor] = field(default_factory=list)
    stepped: bool = False


class StepGuard:
    """Skip every step in which a loss or a gradient is not finite.

    A skipped step changes no bit of the weights, the optimizer's state, the buffers and the moving averages in the
    model. Other steps compute the same as without the guard.

    A loss that is not finite is multiplied by NaN. Its gradients are NaN then, and after DDP has averaged them they are
    NaN on every process. So all processes decide alike without further communication. Gradients are checked before
    they are clipped. With accumulated gradients one bad loss skips the common step, and the state is restored to that
    before the first of the iterations.

    On a GPU the host does not wait: torch's fused optimizers and GradScaler skip by a flag on the device. For other
    optimizers, for FSDP and in the first step of any optimizer, the host reads the flag before the step.

    Args:
        model (nn.Module): The model. It may be wrapped.
        optim_wrapper (OptimWrapper | OptimWrapperDict): Its optimizer wrapper or wrappers. Their ``backward`` and
            ``step`` are replaced.
        averages (Iterable[nn.Module]): Averaged models outside the model that are restored, too. Defaults to ().
    """

    def __init__(
        self, model: nn.Module, optim_wrapper: OptimWrapper | OptimWrapperDict, averages: Iterable[nn.Module] = ()
    ) -> None:
        wrappers = _wrappers(optim_wrapper)
        # An optimizer may also have frozen parameters.
        trained = [
            p for w in wrappers for group in w.optimizer.param_groups for p in group['params'] if p.requires_grad
        ]
        self._state = StateBackup(model, trained, averages)
        self._steps: list[CheckedStep] = []
        # Whether there were iterations since the last step.
        self.amid_steps = False
        # DDP averages the gradients before the step. With FSDP each process has a shard of them.
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

        vars(wrapper).update(backward=guarded_backward, step=guarded_step)

    def start_iteration(self) -> None:
        """Copy the state that a forward pass may change. Call it before each iteration."""
        self._steps = []
        self._state.learn()
        if not self.amid_steps:
            self._state.keep()
            self.amid_steps = True

    def steps(self) -> list[CheckedStep]:
        """The findings since :meth:`start_iteration`: one per step, none while gradients are accumulated."""
        return self._steps

    def skipped(self) -> bool:
        """Whether a step of this iteration was skipped. Waits until the device has made it."""
        return any(step.skipped for step in self._steps)

    def restore_before_checkpoint(self) -> None:
        """While gradients are accumulated, restore a state that is not finite now, not only at the next step."""
        if self.amid_steps and self._state.became_non_finite():
            self._state.restore()

    def _step(self, wrapper: OptimWrapper, pending: _Pending, step: Callable) -> None:
        with torch.no_grad():
            checked, skip = self._check(wrapper, pending)
        optimizer = wrapper.optimizer
        if skip is True:
            # The call lets GradScaler lower its scale.
            if _scaler(wrapper) is not None:
                with _without_step(optimizer):
                    step()
            self._state.restore()
        elif skip is False:
            step()
            pending.stepped = True
        else:
            # GradScaler sets the flag itself for the same gradients. Without fused kernels it omits the step.
            if _scaler(wrapper) is None:
                vars(optimizer)['found_inf'] = skip
            try:
                step()
            finally:
                vars(optimizer).pop('found_inf', None)
            self._state.restore(skip.bool())
        pending.factors = []
        self.amid_steps = False
        self._steps.append(checked)

    def _check(self, wrapper: OptimWrapper, pending: _Pending) -> tuple[CheckedStep, bool | Tensor]:
        """Whether to skip the next step: a bool if the host decides, else a () tensor of 0 or 1 on the device."""
        params: list[Tensor] = []
        gradients: list[Tensor] = []
        for group in wrapper.optimizer.param_groups:
            for param in group['params']:
                gradient = param.grad
                if gradient is not None:
                    gradient = gradient.coalesce().values() if gradient.is_sparse else gradient
                    # With FSDP the shard of a process may be empty.
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
            # Optimizers accumulate the square, which may be infinite. A scaler checks only the gradient.
            largest = largest.to(torch.promote_types(largest.dtype, torch.float32)).square()
        found = torch.cat([largest, *(factor.to(largest).view(1) for factor in pending.factors)])
        # All processes must decide alike, and the guard like a scaler, so that a loss of one process may not decide.
        losses_decide = self._ask_others or not (self._same_gradients or scaler)
        flag = (found if losses_decide else largest).isfinite().all().logical_not().float()
        if self._ask_others:
            torch_dist.all_reduce(flag, torch_dist.ReduceOp.MAX)
        values = torch.cat([flag.view(1), found])
        by_device = device_type == 'cuda' and (scaler is not None or _skips_on_device(wrapper.optimizer))
        # In its first step an optimizer creates its state. A skipped step on the device would fill it with garbage.
        if not by_device or self._ask_others or not pending.stepped:
            values = values.cpu()
            skip = bool(values[0])
            if skip and scaler is not None and gradients:
                # With FSDP each process has its own scaler, which checks only its shard.
                gradients[0].fill_(math.nan)
            return CheckedStep(params, values), skip
        on_host, event = _send_to_host(values)
        return CheckedStep(params, on_host, event), flag

    @staticmethod
    def _clearly_finite(gradients: list[Tensor], factors: list[Tensor]) -> bool:
        """A quick check on the CPU: False if a value is not finite or a sum of squares overflows."""
        norms = torch._foreach_norm(gradients) if gradients else []
        return not norms or math.isfinite(torch.stack([*norms, *factors]).sum())
