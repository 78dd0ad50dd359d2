"""Shared by the sections: models of configs, timing, rates of the machine, tables."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmmap.registry import MODELS

from . import NAMES, ROOT


def config_path(arch: str) -> Path:
    """Config that pretrains this size on ImageNet."""
    return ROOT / f'configs/map/map_hybrid-{arch}-p16_8xb256-amp-coslr-1600e_in1k.py'


def load_config(arch: str) -> Config:
    """The config of a size, ``NAMES``, or of a file."""
    return Config.fromfile(config_path(arch) if arch in NAMES else arch)


def build_model(cfg: Config, device: torch.device, seed: int) -> nn.Module:
    """The model of a config in training mode, the same weights for the same seed."""
    torch.manual_seed(seed)
    return MODELS.build(cfg.model).train().to(device)


def random_images(model: nn.Module, batch: int, device: torch.device) -> Tensor:
    """Normal noise in place of preprocessed images, in the size of a model."""
    return torch.randn(batch, model.backbone.in_channels, *model.backbone.img_size, device=device)


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished all its work."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def free_memory() -> None:
    """Drop compiled graphs and cached memory, so that the next measurement starts like the first one."""
    torch.compiler.reset()  # torch also refuses to compile one forward for more than eight models.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def captured(call: Callable[[], object]) -> Callable[[], object]:
    """A call as a CUDA graph. Its replay takes the time of the GPU and almost none of the host."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


def median_ms(
    call: Callable[[], object], device: torch.device, milliseconds: int = 60, as_graph: bool = False
) -> float:
    """Median duration of a call, on a GPU by its own clock and with its cache cleared before each call.

    Args:
        call: What to time.
        device: Where it runs.
        milliseconds: Spent on timing on a GPU.
        as_graph: Replay a CUDA graph of the call: the GPU then never waits for the host between kernels.
    """
    if device.type == 'cuda':
        from triton.testing import do_bench

        return do_bench(captured(call) if as_graph else call, warmup=20, rep=milliseconds, return_mode='median')
    call()
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds)


def seconds_of_steps(step: Callable[[], object], device: torch.device, steps: int, runs: int) -> list[float]:
    """Seconds of a step, ``runs`` times the mean over ``steps`` steps in a row."""
    seconds = []
    for _ in range(runs):
        synchronize(device)
        start = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize(device)
        seconds.append((time.perf_counter() - start) / steps)
    return seconds


def measure_rates(device: torch.device) -> dict[str, float]:
    """What the machine can do: bfloat16 matrix products (TFLOP/s) and copies (GB/s read and written)."""
    large = device.type == 'cuda'
    size = 8192 if large else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randn(2**28 if large else 2**22, device=device)
    target = torch.empty_like(source)
    product = median_ms(lambda: torch.mm(a, b), device)
    copy = median_ms(lambda: target.copy_(source), device)
    return dict(matrix_tflops=2 * size**3 / product / 1e9, copy_gbytes=2 * source.nbytes / copy / 1e6)


@contextmanager
def peak_bytes(device: torch.device) -> Iterator[list[int]]:
    """Yield a list that gets the peak of allocated bytes on a GPU inside the block; it stays empty on a CPU."""
    found: list[int] = []
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    yield found
    if device.type == 'cuda':
        found.append(torch.cuda.max_memory_allocated(device))


def count_parameters(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def relative_error(found: Tensor, exact: Tensor) -> float:
    """Norm of the difference over the norm of the exact values, if that is not 0; infinite if it is NaN."""
    exact = exact.double()
    norm = exact.norm()
    error = ((found.double() - exact).norm() / torch.where(norm > 0, norm, 1.0)).item()
    return error if error == error else float('inf')


def one_line(error: BaseException) -> str:
    """An error in one line."""
    text = ' '.join(str(error).split()) or 'no message'
    return f'{type(error).__name__}: {text[:400]}'


def format_table(rows: Sequence[dict], columns: dict[str, str]) -> str:
    """Rows as a Markdown table.

    Args:
        rows: What to show.
        columns: Format of each column by its key, such as '.2f'; a row without the key gets a dash.

    Returns:
        str: The lines, the keys as titles.
    """
    lines = ['| ' + ' | '.join(columns) + ' |', '|' + '---|' * len(columns)]
    for row in rows:
        cells = ('-' if row.get(key) is None else format(row[key], spec) for key, spec in columns.items())
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
