"""Mixed precision on CPUs, which mmengine's ``AmpOptimWrapper`` refuses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmmap.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """mmengine's ``OptimWrapper`` with bfloat16 mixed precision on a CPU.

    bfloat16 has float32's range, so losses are not scaled. A run of this wrapper resumes from a checkpoint of
    ``AmpOptimWrapper`` and vice versa. :func:`mmmap.engine.cpu_config.adapt_to_cpu` replaces that one where this is
    faster.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass: gradient accumulation as configured, and autocast."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
