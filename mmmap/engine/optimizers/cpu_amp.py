"""Mixed precision on CPUs, which mmengine's own wrapper refuses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmmap.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Trains in bfloat16 mixed precision on a CPU, all else as mmengine's ``OptimWrapper``.

    bfloat16 has float32's range, so losses are not scaled. Its checkpoints and those of ``AmpOptimWrapper`` resume
    each other's runs. :func:`mmmap.engine.device.adapt_to_device` puts it in that one's place where it pays.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass: gradient accumulation as configured, and autocast."""
        with super().optim_context(model), torch.autocast('cpu', torch.bfloat16):
            yield
