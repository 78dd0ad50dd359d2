"""Time the selective scan: native kernels, plain autograd, the plain-torch fallback and mambapy.

    python tools/benchmarks/benchmark_scan.py [--threads 2] [--repeats 7] [--json FILE] [--plot FILE]

mambapy's parallel scan is timed if it can be imported; install it for this run only with

    pip install --no-deps --target /tmp/mambapy mambapy && export PYTHONPATH=/tmp/mambapy

The candidates of every table take turns in one run: the ratios hold even on a shared machine. Quote absolute times from
an idle machine only; the load is printed.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from mmmap.command_line import add_output_arguments


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument(
        '--repeats', type=int, default=7, help='timed passes of each candidate in each of its two turns'
    )
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--keep-memory', action='store_true', help='let the process keep freed memory, as tools/train.py does'
    )
    add_output_arguments(parser)
    parser.add_argument('--peak-of', nargs=5, metavar=('NAME', 'B', 'D', 'L', 'N'), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmmap.engine.cpu_features import keep_freed_memory
from mmmap.engine.error_report import one_line_errors
from mmmap.ops import available_backends, selective_scan
from mmmap.utils.benchmark import describe_machine, print_machine, time_in_turns, write_report

SHAPES = ((8, 384, 98, 16), (8, 384, 196, 16), (2, 1536, 1024, 16))
LENGTHS = (98, 196, 392, 784, 1568)
Scan = Callable[..., Tensor]


def make_inputs(shape: tuple[int, int, int, int], everything: bool, seed: int) -> dict[str, Tensor | bool]:
    """Arguments of a scan of shape (batch, channels, length, states), channels side by side in memory.

    Args:
        shape: (batch, channels, length, states).
        everything: With gate, step-size bias and softplus; the skip D is always there.
        seed: Of the random numbers.
    """
    batch, channels, length, states = shape
    generator = torch.Generator().manual_seed(seed)

    def sequence(rows: int) -> Tensor:
        return torch.randn(batch, length, rows, generator=generator).transpose(1, 2)

    inputs = {
        'u': sequence(channels),
        'delta': sequence(channels).abs() * 0.1,
        'A': -torch.arange(1.0, states + 1).repeat(channels, 1),
        'B': sequence(states),
        'C': sequence(states),
        'D': torch.ones(channels),
    }
    if everything:
        inputs.update(z=sequence(channels), delta_bias=torch.zeros(channels) - 2)
    inputs = {name: x.requires_grad_() for name, x in inputs.items()}
    return {**inputs, 'delta_softplus': True} if everything else inputs


def mambapy_scan() -> tuple[Scan | None, str]:
    """The scan through mambapy's parallel scan, and what there is to say about it."""
    try:
        from mambapy.pscan import pscan
    except ImportError as error:
        return None, f'mambapy left out ({error}); see the top of this file for how to install it'

    def scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        u, delta, B, C = (x.transpose(1, 2) for x in (u, delta, B, C))
        decay = torch.exp(delta.unsqueeze(-1) * A)
        states = pscan(decay, (delta * u).unsqueeze(-1) * B.unsqueeze(2))
        return ((states @ C.unsqueeze(-1)).squeeze(-1) + D * u).transpose(1, 2)

    return scan, 'mambapy.pscan'


def candidates() -> dict[str, Scan]:
    """What is compared, by name."""
    found = {}
    for name in ('native', 'torch', 'reference'):
        if available_backends()[name] is None:
            found[name] = lambda name=name, **inputs: selective_scan(**inputs, backend=name)
        else:
            print(f'{name} left out: {available_backends()[name]}')
    scan, note = mambapy_scan()
    if scan is None:
        print(note)
    else:
        found['mambapy'] = scan
    return found


def step(scan: Scan, inputs: dict, weighting: Tensor) -> tuple[Tensor, ...]:
    """One forward and backward pass."""
    wanted = [x for x in inputs.values() if isinstance(x, Tensor)]
    return torch.autograd.grad(scan(**inputs), wanted, weighting)


def median_ms(scans: dict[str, Scan], inputs: dict, repeats: int) -> dict[str, float]:
    """Median milliseconds of a forward and backward pass of each, over two turns of ``repeats`` passes."""
    weighting = torch.ones_like(inputs['u'])
    steps = {name: functools.partial(step, scan, inputs, weighting) for name, scan in scans.items()}
    times = time_in_turns(steps, repeats, turns=2, warm_up=3)
    return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}


def check_agreement(scans: dict[str, Scan], seed: int) -> None:
    """Raise a RuntimeError if two candidates do not compute the same, before anything is timed."""
    inputs = make_inputs((2, 24, 65, 16), False, seed)
    weighting = torch.ones_like(inputs['u'])
    results = {name: step(scan, inputs, weighting) for name, scan in scans.items()}
    first, expected = next(iter(results.items()))
    for name, grads in results.items():
        for grad, other in zip(grads, expected, strict=True):
            if (grad - other).abs().max() > 1e-4 * other.abs().max():
                raise RuntimeError(f'benchmark_scan: {name} and {first} compute different gradients')


def resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f'benchmark_scan: no {field} in /proc/self/status')


def peak_of_one_step(name: str, shape: tuple[int, int, int, int], threads: int, seed: int) -> int:
    """Peak resident bytes of a step beyond what was resident before it. For a process that does nothing else."""
    torch.set_num_threads(threads)
    scan = candidates()[name]
    small = make_inputs((2, 16, 40, shape[3]), False, seed)
    step(scan, small, torch.ones_like(small['u']))
    inputs = make_inputs(shape, False, seed)
    weighting = torch.ones_like(inputs['u'])
    Path('/proc/self/clear_refs').write_text('5')  # start the peak anew
    before = resident_bytes('VmRSS')
    grads = step(scan, inputs, weighting)
    assert len(grads) == 6
    return resident_bytes('VmHWM') - before


def measure_memory(name: str, shape: tuple[int, int, int, int], args: argparse.Namespace) -> int | None:
    """:func:`peak_of_one_step` in a fresh process whose allocator hands every large block back; None without /proc."""
    if not Path('/proc/self/clear_refs').exists():
        return None
    command = [sys.executable, __file__, '--peak-of', name, *map(str, shape), '--threads', str(args.threads)]
    environment = {**os.environ, 'MALLOC_MMAP_THRESHOLD_': '65536', 'MALLOC_TRIM_THRESHOLD_': '65536'}
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return int(result.stdout.splitlines()[-1])


def time_table(scans: dict[str, Scan], args: argparse.Namespace) -> list[dict]:
    """Print and return the times of every shape; mambapy has no gate, so it sits out the row with everything."""
    rows = []
    print(f'\nforward + backward, ms (median of 2 x {args.repeats}); x = times slower than native')
    print(f'{"(B, D, L, N)":>22} {"gate+softplus":>13}' + ''.join(f'{name:>20}' for name in scans))
    for shape, everything in [(shape, False) for shape in SHAPES] + [(SHAPES[0], True)]:
        taking_part = {name: scan for name, scan in scans.items() if not (everything and name == 'mambapy')}
        times = median_ms(taking_part, make_inputs(shape, everything, args.seed), args.repeats)
        base = times.get('native')
        cells = []
        for name in scans:
            ratio = f' ({times[name] / base:.1f}x)' if name in times and base else ''
            cells.append(f'{f"{times[name]:.2f}{ratio}" if name in times else "-":>20}')
        print(f'{shape!s:>22} {"yes" if everything else "no":>13}' + ''.join(cells), flush=True)
        rows.append({'shape': shape, 'gate_and_softplus': everything, 'ms': times})
    return rows


def length_table(scan: Scan, args: argparse.Namespace) -> list[dict]:
    """Print and return the time per position of sequences of growing length."""
    print('\nnative, (8, 384, L, 16): time per position stays level if the cost is linear in L')
    rows = []
    for length in LENGTHS:
        inputs = make_inputs((8, 384, length, 16), False, args.seed)
        milliseconds = median_ms({'native': scan}, inputs, 2 * args.repeats)['native']
        rows.append({'length': length, 'ms': milliseconds})
        print(
            f'  L = {length:>4}: {milliseconds:8.2f} ms, {1e3 * milliseconds / length:7.2f} us per position', flush=True
        )
    return rows


def memory_table(scans: dict[str, Scan], args: argparse.Namespace) -> list[dict]:
    """Print and return the peak memory of a step beyond its inputs, next to the size of its results."""
    shape = SHAPES[-1]
    batch, channels, length, states = shape
    inputs = make_inputs(shape, False, args.seed)
    taken = sum(x.nbytes for x in inputs.values())
    results = taken + inputs['u'].nbytes  # a gradient for each input, and the output
    state = 4 * batch * channels * states
    print(f'\npeak memory of one step beyond its inputs, MiB, {shape}')
    sizes = {'inputs': taken, 'results (output and gradients)': results, 'one state': state}
    print('  ' + ', '.join(f'{name} {size / 2**20:.2f}' for name, size in sizes.items()))
    rows = []
    for name in scans:
        peak = measure_memory(name, shape, args)
        if peak is None:
            print('  not measured: needs /proc (Linux)')
            break
        kept = (peak - results) / state
        print(f'  {name:>10}: {peak / 2**20:8.1f} = results + {kept:.1f} states (L = {length})', flush=True)
        rows.append({'name': name, 'peak_bytes': peak, 'results_bytes': results, 'state_bytes': state})
    return rows


def draw(report: dict, figure: Figure) -> None:
    """Times by shape, and time per position by length."""
    figure.set_size_inches(10, 3.5)
    left, right = figure.subplots(1, 2)
    rows = [row for row in report['times'] if not row['gate_and_softplus']]
    names = list(rows[0]['ms'])
    for i, name in enumerate(names):
        places = [place + 0.8 * i / len(names) for place in range(len(rows))]
        left.bar(places, [row['ms'][name] for row in rows], width=0.8 / len(names), label=name, align='edge')
    left.set_xticks([place + 0.4 for place in range(len(rows))], [str(tuple(row['shape'])) for row in rows])
    left.set(yscale='log', ylabel='ms, forward + backward', title='(B, D, L, N)')
    left.legend()
    lengths = report.get('lengths', [])
    right.plot([row['length'] for row in lengths], [1e3 * row['ms'] / row['length'] for row in lengths], marker='o')
    right.set(xlabel='L at (8, 384, L, 16)', ylabel='us a position, native', ylim=(0, None))


def main() -> None:
    """Measure and print."""
    args = parse_args()
    if args.peak_of:
        name, *sizes = args.peak_of
        print(peak_of_one_step(name, tuple(map(int, sizes)), args.threads, args.seed))
        return
    torch.set_num_threads(args.threads)
    if args.keep_memory:
        keep_freed_memory()
    machine = describe_machine(args.seed, args.threads)
    print_machine(machine)
    scans = candidates()
    check_agreement(scans, args.seed)
    report = {'machine': machine, 'times': time_table(scans, args)}
    if 'native' in scans:
        report['lengths'] = length_table(scans['native'], args)
    report['memory'] = memory_table(scans, args)
    write_report(args, report, lambda figure: draw(report, figure))


if __name__ == '__main__':
    with one_line_errors():
        main()
