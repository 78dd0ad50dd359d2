"""Gradients of the batches since the last step, where a run steps once in several batches."""

import torch
from mmengine.dist import all_reduce, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .run_settings import optimizers_of


def batches_since_step(runner: Runner) -> int:
    """Batches whose gradients wait for the next step; 0 between two steps.

    Args:
        runner (Runner): Between two iterations.
    """
    waiting = [
        wrapper.inner_count % getattr(wrapper, '_accumulative_counts', 1)
        for wrapper in optimizers_of(runner).values()
        if hasattr(wrapper, 'should_update') and not wrapper.should_update()
    ]
    return max(waiting, default=0)


def restore_counts(runner: Runner, counts: dict[str, int]) -> None:
    """Let each of several optimizers count its batches on, which mmengine does for a single one only.

    Args:
        runner (Runner): Is resumed.
        counts (dict[str, int]): ``inner_count`` of each at the checkpoint.
    """
    if isinstance(runner.optim_wrapper, OptimWrapperDict):
        for name, wrapper in runner.optim_wrapper.items():
            wrapper._inner_count = counts.get(name, wrapper.inner_count)


def _parameters(runner: Runner) -> dict[str, nn.Parameter]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def average_gradients(runner: Runner) -> bool:
    """Give every rank the mean of all ranks' gradients, so that one of them can store those of all.

    The next step averages over the ranks anyway: the result is the same but for rounding.

    Args:
        runner (Runner): Of every rank, at the same time.

    Returns:
        bool: Whether a rank has those of all now: not if a model is split over ranks.
    """
    if get_world_size() == 1:
        return True
    if not isinstance(runner.model, DistributedDataParallel):
        return False
    parameters = list(_parameters(runner).values())
    used = torch.tensor([parameter.grad is not None for parameter in parameters], device=parameters[0].device).float()
    # A part that one rank's batches did not need may have gradients on another.
    all_reduce(used, 'max')
    for parameter, is_used in zip(parameters, used.tolist(), strict=True):
        if is_used:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            all_reduce(parameter.grad, 'mean')
    return True


def read_gradients(runner: Runner) -> dict[str, Tensor]:
    """The gradients that wait for the next step, by the parameter's name, on the CPU."""
    return {name: one.grad.cpu() for name, one in _parameters(runner).items() if one.grad is not None}


def write_gradients(runner: Runner, gradients: dict[str, Tensor]) -> None:
    """Put gradients back that :func:`read_gradients` gave.

    Args:
        runner (Runner): Has the model that they are of.
        gradients (dict[str, Tensor]): The gradients.
    """
    for name, parameter in _parameters(runner).items():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter, copy=True)
