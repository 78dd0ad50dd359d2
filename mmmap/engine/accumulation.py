"""Gradients of the batches since the last step, where a run makes one step for several batches."""

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .runner_parts import accumulated_batches, optimizers_of, unwrapped_model


def batches_since_step(runner: Runner) -> int:
    """The number of batches since the last step; 0 right after a step. Call it between two iterations."""
    waiting = [
        wrapper.inner_count % accumulated_batches(wrapper)
        for wrapper in optimizers_of(runner).values()
        if hasattr(wrapper, 'should_update') and not wrapper.should_update()
    ]
    return max(waiting, default=0)


def restore_counts(runner: Runner, counts: dict[str, int]) -> None:
    """Restore the number of batches that each of several optimizers has seen (``inner_count`` at the checkpoint).

    mmengine restores it for a single optimizer only.
    """
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        for name, wrapper in runner.optim_wrapper.items():
            wrapper._inner_count = counts.get(name, wrapper.inner_count)


def _parameters(runner: Runner) -> dict[str, nn.Parameter]:
    named = unwrapped_model(runner).named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


@torch.no_grad()
def average_gradients(runner: Runner) -> bool:
    """Give every rank the mean of all ranks' gradients, so that one rank can store them. All ranks call it.

    The next step averages over the ranks anyway: the result is the same but for rounding. Returns False, and changes
    nothing, if the model is split over ranks.
    """
    if get_world_size() == 1:
        return True
    if not isinstance(runner.model, DistributedDataParallel):
        return False
    parameters = list(_parameters(runner).values())
    used = torch.tensor([parameter.grad is not None for parameter in parameters], device=parameters[0].device).float()
    # The batches of one rank may not have used a part that those of another rank used.
    all_reduce(used, 'max')
    for parameter, is_used in zip(parameters, used.tolist(), strict=True):
        if is_used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad, 'mean')
    return True


def read_gradients(runner: Runner) -> dict[str, Tensor]:
    """The gradients of a run by the parameter's name, on the CPU."""
    return {name: one.grad.cpu() for name, one in _parameters(runner).items() if one.grad is not None}


def write_gradients(runner: Runner, gradients: dict[str, Tensor]) -> None:
    """Restore the gradients that :func:`read_gradients` returned."""
    for name, parameter in _parameters(runner).items():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter, copy=True)
