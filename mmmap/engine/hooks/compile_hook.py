"""A hook that compiles what takes the time of a training step."""

from collections.abc import Callable
from functools import partial

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmmap.models.layers import HybridEncoder, ReleasedPointEncoder
from mmmap.models.necks import ReleasedPointDecoder
from mmmap.models.necks.token_decoder import TokenDecoder
from mmmap.registry import HOOKS

from ..errors import UserError

#: Modes of ``torch.compile``, and whether they replay CUDA graphs.
COMPILE_MODES = {'default': False, 'reduce-overhead': True, 'max-autotune-no-cudagraphs': False, 'max-autotune': True}
#: What takes the time of a step and is a graph as a whole.
COMPILED = (HybridEncoder, ReleasedPointEncoder, TokenDecoder, ReleasedPointDecoder)


def compile_parts(model: nn.Module, mode: str = 'default', backend: str = 'inductor') -> list[str]:
    """Compile each encoder of tokens and each decoder in place, for calls of which gradients are taken.

    Other calls, those of evaluations, are as before. They would be compiled too, for minutes, and their numbers of
    images and tokens would make torch take these for variable in a training as well.

    Args:
        model (nn.Module): Holds them, and may be wrapped.
        mode (str): As of ``torch.compile``. Defaults to 'default'.
        backend (str): As of ``torch.compile``. Defaults to 'inductor'.

    Returns:
        list[str]: Their names in the model.
    """
    parts = {name: module for name, module in model.named_modules() if isinstance(module, COMPILED)}
    for module in parts.values():
        module.compile(backend=backend, mode=mode)
        # What compile() leaves, because copies of a module (averages of weights) do without it.
        module._compiled_call_impl = partial(_call, module, module._compiled_call_impl)
    return list(parts)


def _call(module: nn.Module, compiled: Callable, *args: object, **kwargs: object) -> object:
    return (compiled if torch.is_grad_enabled() else module._call_impl)(*args, **kwargs)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile each encoder of tokens and each decoder by ``torch.compile`` before a training starts.

    They are compiled in place: names of weights, checkpoints and the rest of the model are as without it, and so are
    evaluations. The first steps take a minute or two, and so do the first of another number of tokens.

    Args:
        mode (str): As of ``torch.compile``. 'reduce-overhead' also replays CUDA graphs, which is for small models or
            batches, where a GPU waits for its host; the number of tokens should not change then, and gradients cannot
            be accumulated. Defaults to 'default'.
        backend (str): As of ``torch.compile``. Defaults to 'inductor'.

    Raises:
        ValueError: If there is no such mode.
    """

    def __init__(self, mode: str = 'default', backend: str = 'inductor') -> None:
        if mode not in COMPILE_MODES:
            raise ValueError(f'mode={mode!r}: must be one of {", ".join(COMPILE_MODES)}')
        self.mode = mode
        self.backend = backend

    def before_train(self, runner: Runner) -> None:
        """Compile the parts; they are translated when they are called first.

        Args:
            runner (Runner): Holds the model, which may be wrapped.

        Raises:
            UserError: If the model has no such part, or accumulates gradients while CUDA graphs are asked for.
        """
        if COMPILE_MODES[self.mode] and getattr(runner.optim_wrapper, '_accumulative_counts', 1) > 1:
            raise UserError(
                f'CompileHook: mode {self.mode!r} overwrites the gradients of the step before, which '
                "optim_wrapper.accumulative_counts adds to: set it to 1, or use mode 'default'"
            )
        compiled = compile_parts(runner.model, self.mode, self.backend)
        if not compiled:
            kinds = ', '.join(kind.__name__ for kind in COMPILED)
            raise UserError(f'CompileHook: {_kind(runner.model)} has nothing that it compiles: {kinds}')
        runner.logger.info(f'Compiled ({self.mode}): {", ".join(compiled)}. The first steps take a minute or two.')

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, mode: str = 'train') -> None:
        """Let the next step overwrite what CUDA graphs hold of the step before."""
        if COMPILE_MODES[self.mode]:
            torch.compiler.cudagraph_mark_step_begin()


def _kind(model: nn.Module) -> str:
    return type(getattr(model, 'module', model)).__name__
