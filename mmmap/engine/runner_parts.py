"""Parts of a Runner that several hooks need."""

from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn


def unwrapped_model(runner: Runner) -> nn.Module:
    """The model of a run without the wrapper of a distributed run."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def optimizers_of(runner: Runner) -> dict[str, BaseOptimWrapper]:
    """The optimizer wrappers of a run by name; a single one has the name ''."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def accumulated_batches(wrapper: object) -> int:
    """The batches for which an optimizer wrapper makes one step; mmengine has no public name for it."""
    return getattr(wrapper, '_accumulative_counts', 1)


def checkpoint_hook_of(runner: Runner) -> CheckpointHook | None:
    """The first hook of a run that writes checkpoints."""
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
