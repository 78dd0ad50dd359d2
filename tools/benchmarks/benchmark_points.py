"""Time the operators on point clouds: native kernels, the plain-torch fallback, and common plain torch.

    python tools/benchmarks/benchmark_points.py [--threads 2] [--repeats 5] [--json FILE] [--plot FILE]

Common plain torch is the code that projects use without an extension: a loop over the picks of farthest point sampling,
a loop over the queries for their neighbours, and all distances in a cloud (torch.cdist) for the neighbours again and
for the other operators. The candidates of an operator take turns in one run.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import NamedTuple

from mmmap.command_line import add_output_arguments


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--repeats', type=int, default=5, help='timed calls of each candidate in each of its two turns')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--batch-size', type=int, default=8, help='clouds')
    parser.add_argument('--points', type=int, default=8192, help='points of a cloud')
    parser.add_argument('--samples', type=int, default=1024, help='points to pick, queries of the other operators')
    parser.add_argument('--neighbours', type=int, default=32, help='neighbours of a query')
    add_output_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
from matplotlib.figure import Figure
from torch import Tensor

from mmmap.engine.error_report import one_line_errors
from mmmap.ops import ball_query, chamfer_distance, farthest_point_sample, gather_points, knn, three_interpolate
from mmmap.ops.points import available_point_backends
from mmmap.utils.benchmark import describe_machine, print_machine, time_in_turns, write_report

CHANNELS = 64  # of the interpolated features
RADIUS = 0.2


class Case(NamedTuple):
    """An operator: what to call by the name of its candidates, and one number a cloud from what they return."""

    name: str
    calls: dict[str, Callable[[], Tensor]]
    summary: Callable[[Tensor], Tensor]


def sample_in_a_loop(points: Tensor, num_samples: int) -> Tensor:
    """Farthest point sampling, all clouds at once."""
    clouds = torch.arange(len(points))
    nearest = torch.full(points.shape[:2], float('inf'))
    pick = torch.zeros(len(points), dtype=torch.int64)
    picks = [pick]
    for _ in range(num_samples - 1):
        nearest = torch.minimum(nearest, ((points - points[clouds, pick][:, None]) ** 2).sum(-1))
        pick = nearest.argmax(-1)
        picks.append(pick)
    return torch.stack(picks, 1)


def neighbours_in_a_loop(query: Tensor, points: Tensor, k: int) -> Tensor:
    """Squared distances of the nearest, query by query."""
    return torch.stack(
        [
            torch.stack([((p - q) ** 2).sum(-1).topk(k, largest=False)[0] for q in queries])
            for queries, p in zip(query, points, strict=True)
        ]
    )


def neighbours_from_a_table(query: Tensor, points: Tensor, k: int) -> Tensor:
    """Squared distances of the nearest, cloud by cloud."""
    return torch.stack(
        [torch.cdist(q, p).topk(k, largest=False)[0].square() for q, p in zip(query, points, strict=True)]
    )


def ball_from_a_table(query: Tensor, points: Tensor, radius: float, k: int) -> Tensor:
    """Indices within the radius, the first one repeated, for queries that are points themselves."""
    found = []
    for q, p in zip(query, points, strict=True):
        indices = torch.arange(len(p)).expand(len(q), -1).masked_fill(torch.cdist(q, p) > radius, len(p))
        indices = indices.topk(k, largest=False)[0]
        found.append(torch.where(indices == len(p), indices[:, :1], indices))
    return torch.stack(found)


def interpolate_from_a_table(query: Tensor, points: Tensor, features: Tensor) -> Tensor:
    """Features at the queries, cloud by cloud."""
    found = []
    for q, p, f in zip(query, points, features, strict=True):
        distances, indices = torch.cdist(q, p).topk(3, largest=False)
        weights = 1 / (distances.square() + 1e-8)
        found.append(((weights / weights.sum(-1, keepdim=True))[..., None] * f[indices]).sum(1))
    return torch.stack(found)


def chamfer_from_a_table(a: Tensor, b: Tensor) -> Tensor:
    """The sum of both mean squared distances, cloud by cloud."""
    tables = (torch.cdist(one, other) for one, other in zip(a, b, strict=True))
    return torch.stack([x.amin(1).square().mean() + x.amin(0).square().mean() for x in tables])


def make_cases(args: argparse.Namespace) -> list[Case]:
    """The operators on normally distributed clouds and what takes part in each."""
    generator = torch.Generator().manual_seed(args.seed)
    points = torch.randn(args.batch_size, args.points, 3, generator=generator)
    centres = points[:, : args.samples].contiguous()
    features = torch.randn(args.batch_size, args.samples, CHANNELS, generator=generator)
    n, m, k = args.points, args.samples, args.neighbours

    def case(name: str, ours: Callable[[str], Tensor], plain: dict, summary: Callable[[Tensor], Tensor]) -> Case:
        usable = [backend for backend, reason in available_point_backends().items() if reason is None]
        return Case(name, {**{backend: lambda b=backend: ours(b) for backend in usable}, **plain}, summary)

    def chamfer(backend: str) -> Tensor:
        to_points, to_centres = chamfer_distance(centres, points, backend=backend)
        return to_points.mean(1) + to_centres.mean(1)

    def farthest_left(picks: Tensor) -> Tensor:
        return chamfer_distance(points, gather_points(points, picks))[0].amax(1)

    def mean_distance(indices: Tensor) -> Tensor:
        return (gather_points(points, indices) - centres[:, :, None]).norm(dim=-1).mean((1, 2))

    return [
        case(
            f'farthest point sampling, {n} to {m}',
            lambda backend: farthest_point_sample(points, m, backend=backend),
            {'loop': lambda: sample_in_a_loop(points, m)},
            farthest_left,
        ),
        case(
            f'{k} nearest of {n}, {m} queries',
            lambda backend: knn(centres, points, k, backend=backend)[0],
            {
                'loop': lambda: neighbours_in_a_loop(centres, points, k),
                'cdist': lambda: neighbours_from_a_table(centres, points, k),
            },
            lambda distances: distances.mean((1, 2)),
        ),
        case(
            f'{k} within {RADIUS} of {n}, {m} queries',
            lambda backend: ball_query(centres, points, RADIUS, k, backend=backend),
            {'cdist': lambda: ball_from_a_table(centres, points, RADIUS, k)},
            mean_distance,
        ),
        case(
            f'interpolation, {m} to {n}, {CHANNELS} channels',
            lambda backend: three_interpolate(points, centres, features, backend=backend),
            {'cdist': lambda: interpolate_from_a_table(points, centres, features)},
            lambda interpolated: interpolated.norm(dim=-1).mean(1),
        ),
        case(
            f'Chamfer distance, {m} and {n}',
            chamfer,
            {'cdist': lambda: chamfer_from_a_table(centres, points)},
            lambda distances: distances,
        ),
    ]


def check_agreement(cases: list[Case]) -> None:
    """Raise a RuntimeError if two candidates do not compute the same, before anything is timed."""
    for case in cases:
        (first, expected), *others = ((name, case.summary(call())) for name, call in case.calls.items())
        for name, found in others:
            if not torch.allclose(found, expected, rtol=1e-3):
                raise RuntimeError(f'benchmark_points: {case.name}: {name} and {first} compute different results')


def time_table(cases: list[Case], args: argparse.Namespace) -> list[dict]:
    """Print and return the median times of every operator."""
    names = list(dict.fromkeys(name for case in cases for name in case.calls))
    rows = []
    print(f'\n{args.batch_size} clouds, ms (median of 2 x {args.repeats}); x = times slower than native')
    print(f'{"":>44}' + ''.join(f'{name:>18}' for name in names))
    for case in cases:
        times = time_in_turns(case.calls, args.repeats, turns=2, warm_up=1)
        times = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
        cells = []
        for name in names:
            ratio = f' ({times[name] / times["native"]:.1f}x)' if name in times and 'native' in times else ''
            cells.append(f'{f"{times[name]:.2f}{ratio}" if name in times else "-":>18}')
        print(f'{case.name:>44}' + ''.join(cells), flush=True)
        rows.append({'operator': case.name, 'ms': times})
    return rows


def draw(report: dict, figure: Figure) -> None:
    """Times by operator."""
    figure.set_size_inches(10, 3.5)
    axes = figure.subplots()
    rows = report['times']
    names = list(dict.fromkeys(name for row in rows for name in row['ms']))
    for i, name in enumerate(names):
        bars = [(row['ms'][name], place) for place, row in enumerate(rows) if name in row['ms']]
        axes.barh([place + 0.2 * i for _, place in bars], [ms for ms, _ in bars], height=0.2, label=name, align='edge')
    axes.set_yticks([place + 0.4 for place in range(len(rows))], [row['operator'] for row in rows])
    axes.set(xscale='log', xlabel='ms')
    axes.invert_yaxis()
    axes.legend(loc='upper left', bbox_to_anchor=(1, 1))


def main() -> None:
    """Measure and print."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    machine = describe_machine(args.seed, args.threads)
    print_machine(machine)
    for name, reason in available_point_backends().items():
        if reason is not None:
            print(f'{name} left out: {reason}')
    cases = make_cases(args)
    check_agreement(cases)
    report = {'machine': machine, 'batch_size': args.batch_size, 'times': time_table(cases, args)}
    write_report(args, report, lambda figure: draw(report, figure))


if __name__ == '__main__':
    with one_line_errors():
        main()
