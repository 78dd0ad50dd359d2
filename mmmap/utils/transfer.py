"""Moving small tensors to an accelerator."""

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device, without waiting for what the device still has to do.

    Random numbers that decide what a model sees are drawn on the CPU and sent: every kind of device then sees the same.

    Args:
        values (Tensor): On the CPU.
        device (torch.device): Where it is wanted.
    """
    if device.type == 'cuda':
        # Only copies from pinned memory leave the host free.
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
