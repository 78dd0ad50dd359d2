"""Scores batch after batch: the next one starts before the last is read, and CPU cores share a batch."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def one_ahead(
    batches: Iterator[tuple[np.ndarray, Tensor]], score: Callable[[Tensor], Callable[[], Tensor]]
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Yield the indices and scores of each batch after the next batch has been started."""
    last = None
    for parts, crops in batches:
        following = parts, score(crops)
        if last:
            yield last[0], last[1]()
        last = following
    if last:
        yield last[0], last[1]()


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if input.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled('cpu'):
        return torch.ops.mkldnn._linear_pointwise(input, weight, bias, 'none', [], '')
    return F.linear(input, weight, bias)


class _OneDNNLinear(TorchFunctionMode):
    """Linear layers by oneDNN where torch takes MKL, which on AMD's processors is half as fast."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return (_linear if func is F.linear else func)(*args, **(kwargs or {}))


@contextmanager
def split_over_cores(
    function: Callable[[Tensor], Tensor], batch_size: int, device: torch.device
) -> Iterator[Callable[[Tensor], Callable[[], Tensor]]]:
    """Within it, a function that starts ``function`` on a batch and returns a function that waits for the result.

    On a CPU the batch is split among the cores. That is faster than to split each operation.
    """
    if device.type != 'cpu':

        def at_once(crops: Tensor) -> Callable[[], Tensor]:
            result = function(crops)
            return lambda: result

        yield at_once
        return
    cores = torch.get_num_threads()
    threads = min(cores, batch_size)
    # Each thread has its own autocast and no_grad modes.
    dtype, enabled = torch.get_autocast_dtype('cpu'), torch.is_autocast_enabled('cpu')

    def of_a_thread(crops: Tensor) -> Tensor:
        fast = _OneDNNLinear() if torch.backends.mkldnn.is_available() else nullcontext()
        with torch.no_grad(), torch.autocast('cpu', dtype, enabled), fast:
            return function(crops)

    def start(crops: Tensor) -> Callable[[], Tensor]:
        # Few crops at a time stay in the caches.
        futures = [pool.submit(of_a_thread, part) for part in crops.split(min(4, -(-len(crops) // threads)))]
        return lambda: torch.cat([future.result() for future in futures])

    torch.set_num_threads(cores // threads)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield start
    finally:
        torch.set_num_threads(cores)
