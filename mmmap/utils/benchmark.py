"""For the benchmarks of ``tools/benchmarks``: timing in turns, peak memory, and reports."""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from matplotlib.figure import Figure

from mmmap.version import __version__

Step = Callable[[], object]
# Distributions that figures depend on, beside torch, if they are installed.
_DISTRIBUTIONS = ('onedl-mmengine', 'mmengine', 'onedl-mmpretrain', 'mmpretrain', 'triton', 'opencv-python', 'pillow')


def _cpu_name() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':')[1].strip()
    return platform.processor() or platform.machine()


def describe_machine(seed: int, threads: int) -> dict[str, str | int | float | None]:
    """What figures depend on: processor, accelerator, versions, threads, seed, load of the machine."""
    machine: dict[str, str | int | float | None] = dict(
        cpu=_cpu_name(),
        cores=os.cpu_count(),
        vector=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        load=round(os.getloadavg()[0], 2),
        seed=seed,
        python=platform.python_version(),
        torch=torch.__version__,
        mmmap=__version__,
    )
    if torch.cuda.is_available():
        machine['gpu'] = torch.cuda.get_device_name()
    for name in _DISTRIBUTIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            machine[name] = importlib.metadata.version(name)
    return machine


def print_machine(machine: dict[str, str | int | float | None]) -> None:
    """Print :func:`describe_machine` on one line."""
    print(', '.join(f'{key} {value}' for key, value in machine.items()))


def write_report(args: argparse.Namespace, report: dict, draw: Callable[[Figure], None]) -> None:
    """Write the report to the file of ``--json``, and what ``draw`` puts into a figure to that of ``--plot``."""
    for path in (args.json, args.plot):
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=1) + '\n')
        print(f'written to {args.json}')
    if args.plot:
        figure = Figure(layout='constrained')
        draw(figure)
        figure.savefig(args.plot, dpi=150)
        print(f'drawn to {args.plot}')


def time_in_turns(
    candidates: dict[str, Step], repeats: int, turns: int = 1, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each candidate. They take turns, so that all meet the same load of the machine.

    Args:
        candidates (dict[str, Callable]): What to call, by name.
        repeats (int): Timed calls of a candidate in each of its turns.
        turns (int): Turns of each candidate.
        warm_up (int): Calls at the start of a turn that are not counted: they wake threads and allocate memory.

    Returns:
        dict[str, list[float]]: ``turns * repeats`` durations of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(turns):
        for name, call in candidates.items():
            for i in range(warm_up + repeats):
                start = time.perf_counter()
                call()
                if i >= warm_up:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(step: Step, device: torch.device | str = 'cpu') -> int:
    """Most bytes of tensors on a device at one time during a call, without those before it."""
    if torch.device(device).type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    alive = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak
