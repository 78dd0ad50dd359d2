"""A hook that compiles what takes the time of a training step."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmmap.command_line import COMPILE_MODES
from mmmap.registry import HOOKS

from ...utils.errors import UserError


class _Compiled:
    """A compiled module, called where gradients are taken of as many samples as in its first such call.

    Evaluations and the last, smaller batch of an epoch run as before. They would be compiled, too, for a minute, and
    torch would take the number of samples for a variable from then on, which makes the other calls slower.
    """

    def __init__(self, module: nn.Module, compiled: Callable) -> None:
        self.module = module
        self.compiled = compiled
        self.batch_size: int | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            count = len(next(arg for arg in args if arg is not None))
            self.batch_size = self.batch_size or count
            if count == self.batch_size:
                return self.compiled(self.module, *args, **kwargs)
        return self.module._call_impl(*args, **kwargs)


def _caller() -> Callable:
    """A function that calls a module; each has code of its own, by which torch knows what it has compiled."""

    def call(module: nn.Module, *args: object, **kwargs: object) -> object:
        return module._call_impl(*args, **kwargs)

    call.__code__ = call.__code__.replace()
    return call


def compile_parts(model: nn.Module, mode: str = 'default', backend: str = 'inductor') -> list[str]:
    """Compile each encoder of tokens and each decoder in place, for the full batches of a training.

    They are compiled block by block, all blocks of a class at once, which takes less than half the time of the whole.
    CUDA graphs record each part as a whole, and so does a part whose blocks are computed again in backward.

    Args:
        model (nn.Module): Holds them, and may be wrapped.
        mode (str): As of ``torch.compile``. Defaults to 'default'.
        backend (str): As of ``torch.compile``. Defaults to 'inductor'.

    Returns:
        list[str]: Their names in the model.
    """
    parts = {name: module for name, module in model.named_modules() if getattr(module, 'compilable', False)}
    for part in parts.values():
        blocks = [module for module in part.modules() if getattr(module, 'repeated', False)]
        by_blocks = blocks and not COMPILE_MODES[mode] and not getattr(part, 'with_cp', False)
        calls: dict[type, Callable] = defaultdict(lambda: torch.compile(_caller(), backend=backend, mode=mode))
        for module in blocks if by_blocks else [part]:
            # Where torch looks for it. Copies of a module (averages of weights) do without it.
            module._compiled_call_impl = _Compiled(module, calls[type(module)])
    return list(parts)


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile each encoder of tokens and each decoder by ``torch.compile`` before a training starts.

    They are compiled in place: names of weights, checkpoints and the rest of the model are as without it, and so are
    evaluations and batches of another size than the first. The first steps take a minute or two, and so do the first
    of another number of tokens.

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
            raise UserError(f'CompileHook: {_kind(runner.model)} has neither an encoder nor a decoder of tokens')
        runner.logger.info(f'Compiled ({self.mode}): {", ".join(compiled)}. The first steps take a minute or two.')

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: object = None, mode: str = 'train') -> None:
        """Let the next step overwrite what CUDA graphs hold of the step before."""
        if COMPILE_MODES[self.mode]:
            torch.compiler.cudagraph_mark_step_begin()


def _kind(model: nn.Module) -> str:
    return type(getattr(model, 'module', model)).__name__
