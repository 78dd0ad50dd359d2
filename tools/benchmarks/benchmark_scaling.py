"""Measure time and memory of encoders by sequence length: Mamba, hybrid, and a ViT with as many parameters.

    python tools/benchmarks/benchmark_scaling.py [--device cuda --dtype bfloat16] [--json FILE] [--plot FILE]

Three encoders of the tiny width take turns at forward + backward: layout 'M', layout 'MMMT', and a pure ViT (layout
'T') with as many parameters as 'MMMT'. A step has the same number of tokens at every length, or one sequence if that is
longer: so the fixed cost of a step does not dominate short sequences. The fastest step counts, because other programs
disturb it least.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time

from mmmap.command_line import add_output_arguments

LENGTHS = [64 * 2**i for i in range(9)]


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--lengths', type=int, nargs='+', default=LENGTHS, help='tokens (default: 64 to 16384)')
    parser.add_argument('--tokens', type=int, default=4096, help='tokens in a step (default: %(default)s)')
    parser.add_argument('--depth', type=int, default=4, help="blocks of 'M' and 'MMMT' (default: %(default)s)")
    parser.add_argument('--repeats', type=int, default=5, help='timed steps at most (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16', 'float16'], default='float32')
    add_output_arguments(parser)
    args = parser.parse_args()
    if args.depth < 4 or args.depth % 4:
        parser.error(f"--depth {args.depth}: must be a multiple of the 4 blocks of 'MMMT'")
    if min(args.lengths) < 1:
        parser.error(f'--lengths {min(args.lengths)}: must be positive')
    args.lengths = sorted(set(args.lengths))
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, ScalarFormatter
from torch import Tensor, nn

from mmmap.engine.cpu_features import keep_freed_memory
from mmmap.engine.error_report import one_line_errors
from mmmap.models.backbones.map_hybrid import ARCHS
from mmmap.models.layers import HybridEncoder
from mmmap.utils.benchmark import Step, describe_machine, peak_memory, print_machine, write_report

ARCH = {key: ARCHS['tiny'][key] for key in ('embed_dim', 'num_heads')}
BASE_LENGTH = 1024  # Growth is told from here on: below, the fixed cost of a step hides it.
SECONDS = 5  # Timed passes of an encoder at one length, about.


def count_parameters(model: nn.Module) -> int:
    """Parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def matching_vit(parameters: int) -> dict:
    """Layout and MLP ratio of the ViT of so many parameters.

    It has as many blocks as come nearest with the MLP ratio 4 of the ViT paper (arXiv 2010.11929); the ratio is then
    changed to meet the number.
    """
    one, wider = (count_parameters(HybridEncoder(layout='T', mlp_ratio=ratio, **ARCH)) for ratio in (4.0, 5.0))
    norm = ARCH['embed_dim']
    blocks = max(1, round((parameters - norm) / (one - norm)))
    ratio = 4.0 + ((parameters - norm) / blocks - (one - norm)) / (wider - one)
    return dict(layout='T' * blocks, mlp_ratio=round(ratio, 3))


def build_encoders(depth: int, device: torch.device) -> dict[str, HybridEncoder]:
    """The encoders to compare, by name; 'M' and 'MMMT' have ``depth`` blocks."""
    settings = {'M': dict(layout='M' * depth), 'MMMT': dict(layout='MMMT' * (depth // 4))}
    hybrid = HybridEncoder(**settings['MMMT'], **ARCH)
    settings['ViT'] = matching_vit(count_parameters(hybrid))
    return {name: HybridEncoder(**options, **ARCH).to(device) for name, options in settings.items()}


def make_step(encoder: HybridEncoder, inputs: Tensor, dtype: torch.dtype) -> Step:
    """Forward and backward, under AMP where the data type is not float32."""
    amp = dtype != torch.float32

    def step() -> None:
        with torch.autocast(inputs.device.type, dtype) if amp else contextlib.nullcontext():
            out = encoder(inputs)
        out.float().square().mean().backward()
        encoder.zero_grad(set_to_none=True)

    return step


def seconds_of(step: Step, device: torch.device) -> float:
    """Time of one step."""
    if device.type == 'cuda':
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def measure_length(
    encoders: dict[str, HybridEncoder], length: int, args: argparse.Namespace, device: torch.device
) -> list[dict]:
    """Time and memory of every encoder at one length, the encoders taking turns."""
    batch = max(1, args.tokens // length)
    inputs = torch.randn(batch, length, ARCH['embed_dim'], device=device)
    steps = {name: make_step(encoder, inputs, getattr(torch, args.dtype)) for name, encoder in encoders.items()}
    rows, turns, seconds = {}, {}, {name: [] for name in steps}
    for name, step in steps.items():
        if device.type == 'cuda':
            step()  # Compiles kernels; the memory that takes is none of a step's.
        begin = time.perf_counter()
        memory = peak_memory(step, device)  # Warms up, too.
        took = time.perf_counter() - begin
        # The first pass at a length finds no memory of the sizes it needs, and can be twice as slow as the next ones.
        turns[name] = min(args.repeats, max(1 if took > 2 * SECONDS else 3, int(SECONDS / took)))
        kib_per_token = memory / 2**10 / (batch * length)
        rows[name] = dict(name=name, length=length, batch=batch, peak_bytes=memory, kib_per_token=kib_per_token)
    for turn in range(max(turns.values())):
        for name, step in steps.items():
            if turn < turns[name]:
                seconds[name].append(seconds_of(step, device))
    for name, row in rows.items():
        best = min(seconds[name])
        row.update(seconds=seconds[name], ms=1e3 * best, us_per_token=1e6 * best / (batch * length))
    return list(rows.values())


def curve(rows: list[dict], name: str, key: str) -> dict[int, float]:
    """One figure of one encoder, 'us_per_token' or 'kib_per_token', by length."""
    return {row['length']: row[key] for row in rows if row['name'] == name}


def crossing(first: dict[int, float], second: dict[int, float]) -> float | None:
    """Length from which on the first curve lies below the second, by interpolation on logarithmic axes.

    Args:
        first: Costs by length.
        second: Costs by length, of the same lengths.

    Returns:
        The length; the shortest one if the first curve is below everywhere; None if it is not below at the longest one.
    """
    lengths = sorted(first)
    gaps = [math.log(first[length] / second[length]) for length in lengths]
    if gaps[-1] >= 0:
        return None
    for i in reversed(range(len(gaps) - 1)):
        if gaps[i] >= 0:
            share = gaps[i] / (gaps[i] - gaps[i + 1])
            return math.exp(math.log(lengths[i]) + share * math.log(lengths[i + 1] / lengths[i]))
    return float(lengths[0])


def growth(costs: dict[int, float]) -> tuple[int, int, float]:
    """From which length to which one a cost is compared, and how many times larger it is there."""
    start = BASE_LENGTH if BASE_LENGTH in costs else min(costs)
    return start, max(costs), costs[max(costs)] / costs[start]


def draw(rows: list[dict], names: list[str], title: str, figure: Figure) -> None:
    """Plot time and memory per token against the length."""
    figure.set_size_inches(10, 4)
    panels = {'us_per_token': 'us per token, forward + backward', 'kib_per_token': 'peak KiB per token'}
    for axes, (key, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for name in names:
            costs = curve(rows, name, key)
            axes.loglog(list(costs), list(costs.values()), marker='o', label=name)
        axes.set_xticks(list(costs), [str(length) for length in costs], rotation=45)
        axes.minorticks_off()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.set(xlabel='length of the sequence, tokens', ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(title, fontsize=9)


def main() -> None:
    """Measure, print, and write what is asked for."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    if device.type == 'cuda':
        torch.cuda.set_device(device.index or 0)
    machine = describe_machine(args.seed, args.threads) | dict(device=str(device), dtype=args.dtype)
    encoders = build_encoders(args.depth, device)
    print_machine(machine)
    models = {}
    for name, encoder in encoders.items():
        mlp = [block.mlp.fc1.out_features for block in encoder.blocks if hasattr(block, 'mlp')]
        models[name] = dict(layout=encoder.layout, mlp_hidden=mlp[:1], parameters=count_parameters(encoder))
        hidden = f', {mlp[0]} hidden channels in an MLP' if mlp else ''
        print(f'{name:>6}: layout {encoder.layout}, {models[name]["parameters"]:,} parameters{hidden}')

    print(f'\nforward + backward, width {ARCH["embed_dim"]}: ms a step (us a token, peak MiB a step)')
    print(f'{"L":>6} {"batch":>5}' + ''.join(f'{name:>32}' for name in encoders), flush=True)
    rows = []
    for length in args.lengths:
        found = measure_length(encoders, length, args, device)
        rows += found
        cells = (f'{r["ms"]:.1f} ({r["us_per_token"]:7.2f}, {r["peak_bytes"] / 2**20:7.1f})' for r in found)
        print(f'{length:>6} {found[0]["batch"]:>5}' + ''.join(f'{cell:>32}' for cell in cells), flush=True)

    report = dict(machine=machine, models=models, rows=rows, growth={}, crossing={})
    print()
    for name in encoders:
        start, end, ratio = growth(curve(rows, name, 'us_per_token'))
        report['growth'][name] = dict(start=start, end=end, ratio=ratio)
        print(f'{name:>6}: time per token grows {ratio:.2f}x from L = {start} to {end}')
    for key, what in (('us_per_token', 'time'), ('kib_per_token', 'memory')):
        point = crossing(curve(rows, 'MMMT', key), curve(rows, 'ViT', key))
        report['crossing'][what] = point
        if point is None:
            print(f"'MMMT' does not take less {what} than the ViT at these lengths")
        else:
            print(f"'MMMT' takes less {what} than the ViT from L* = {point:.0f} on")
    title = f'{machine.get("gpu", machine["cpu"])}, {args.dtype}, {args.threads} threads, torch {machine["torch"]}'
    write_report(args, report, lambda figure: draw(rows, list(encoders), title, figure))


if __name__ == '__main__':
    with one_line_errors():
        main()
