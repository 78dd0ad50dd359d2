"""Moving small tensors to an accelerator."""

import torch
from torch import Tensor


def send_to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device, without waiting for the device.

    Random numbers are drawn on the CPU and sent, so that a model gets the same ones on every kind of device.
    """
    if device.type == 'cuda':
        # Copies from other memory would wait.
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
