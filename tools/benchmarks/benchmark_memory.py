"""Measure the peak memory of a backbone at large inputs, with and without gradient checkpointing.

    python tools/benchmarks/benchmark_memory.py [--arch tiny] [--pixels 1024] [--window-size 0] [--json FILE]

Forward and backward of a MAPHybrid that returns the map of its last block, as under a simple feature pyramid. The peak
counts all tensors that exist at once, gradients included, without weights and images. Other programs do not change it.
"""

from __future__ import annotations

import argparse

from mmmap.command_line import add_output_arguments


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--arch', default='tiny', help='arch of MAPHybrid (default: %(default)s)')
    parser.add_argument('--pixels', type=int, default=1024, help='height and width (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--window-size', type=int, default=0, help="MAPHybrid's window_size, in patches")
    parser.add_argument('--amp', action='store_true', help='mixed precision with bfloat16')
    parser.add_argument('--threads', type=int, help="(default: torch's)")
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device', default='cpu')
    add_output_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmmap.engine.cpu_features import keep_freed_memory
from mmmap.engine.error_report import one_line_errors
from mmmap.models.backbones import MAPHybrid
from mmmap.utils.benchmark import describe_machine, peak_memory, print_machine, write_report

NAMES = {False: 'without checkpointing', True: 'with checkpointing', 'selective': 'selective checkpointing'}


def measure(backbone: MAPHybrid, images: Tensor, amp: bool) -> dict[str, float]:
    """Peak bytes of one step, and the sum of all gradients' squares, which tells that steps are alike."""
    device = images.device

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            (feature,) = backbone(images)
        feature.float().square().mean().backward()

    if device.type == 'cuda':  # Compiles kernels; the memory that takes is none of a step's.
        step()
        backbone.zero_grad(set_to_none=True)
    peak = peak_memory(step, device)
    squares = sum(float(p.grad.double().square().sum()) for p in backbone.parameters())
    backbone.zero_grad(set_to_none=True)
    return dict(peak_bytes=peak, squared_gradients=squares)


def draw(rows: dict[str, dict], title: str, figure: Figure) -> None:
    """The peaks as bars."""
    figure.set_size_inches(5, 3)
    axes = figure.subplots()
    bars = axes.bar(list(rows), [row['peak_bytes'] / 2**20 for row in rows.values()], width=0.5)
    axes.bar_label(bars, fmt='%.0f')
    axes.set(ylabel='MiB of tensors at the peak')
    axes.set_title(title, fontsize=9)


def main() -> None:
    """Measure, print, and write what is asked for."""
    args = parse_args()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    machine = describe_machine(args.seed, args.threads) | dict(device=str(device))
    print_machine(machine)
    rows = {}
    with one_line_errors():
        backbone = MAPHybrid(args.arch, args.pixels, out_type='featmap', window_size=args.window_size).to(device)
        images = torch.randn(args.batch_size, 3, args.pixels, args.pixels, device=device)
        for with_cp, name in NAMES.items():
            backbone.encoder.with_cp = with_cp
            rows[name] = row = measure(backbone, images, args.amp)
            print(f'{name:>23}: {row["peak_bytes"] / 2**20:8.1f} MiB at the peak', flush=True)
    plain, *recomputed = rows.values()
    ratio, selective = (row['peak_bytes'] / plain['peak_bytes'] for row in recomputed)
    windows = f', windows of {args.window_size} patches' if args.window_size else ''
    title = (
        f'{args.arch}, batch {args.batch_size} of {args.pixels} x {args.pixels} pixels{windows}, '
        f'{"bfloat16" if args.amp else "float32"}'
    )
    print(f'{title}: with checkpointing {ratio:.3f} of the memory, selective {selective:.3f}')
    report = dict(
        machine=machine,
        arch=args.arch,
        pixels=args.pixels,
        batch_size=args.batch_size,
        window_size=args.window_size,
        amp=args.amp,
        rows=rows,
        ratio=ratio,
        ratio_selective=selective,
    )
    write_report(args, report, lambda figure: draw(rows, title, figure))


if __name__ == '__main__':
    main()
