"""Time whole Mamba mixers on a CPU: mmmap's, one made of calls with flips, and that of Hugging Face transformers.

    python tools/benchmarks/benchmark_mixer.py [--threads 2] [--compile] [--json FILE] [--plot FILE]

Both directions: mmmap's mixer, and the same mixer made of two passes, the second one on flipped copies, as in the
released MAP code. One direction: the mixer of transformers, and the same mixer with the same parameters on mmmap's
operators. These two are timed if transformers can be imported; install it for this run only with

    pip install --target /tmp/transformers 'transformers<5' && export PYTHONPATH=/tmp/transformers

``--compile`` adds an encoder of four blocks, compiled and eager; compiling takes about a minute. All candidates must
agree first, and then take turns in one run.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable

from mmmap.command_line import add_output_arguments


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, help="(default: torch's)")
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--repeats', type=int, default=9, help='timed calls in each of five turns')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument(
        '--compile', action='store_true', help='also time an encoder of four blocks, compiled and eager'
    )
    add_output_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from mmmap.engine.cpu_features import keep_freed_memory
from mmmap.engine.error_report import one_line_errors
from mmmap.models.layers import HybridEncoder, MambaMixer
from mmmap.ops import bidirectional_scan, causal_conv1d, selective_scan
from mmmap.utils.benchmark import describe_machine, peak_memory, print_machine, time_in_turns, write_report

WIDTH, STATES = 192, 16  # 384 channels in the scans
LENGTHS = (98, 196)


def one_direction(x: Tensor, z: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """Convolution, projections and scan of one direction, tokens (B, L, E) in and out."""
    u = causal_conv1d(x.transpose(1, 2), weights['conv'], weights['conv_bias'], activation='silu')
    rank = weights['dt'].shape[1]
    dt, B, C = F.linear(u.transpose(1, 2), weights['x']).split([rank, STATES, STATES], dim=-1)
    y = selective_scan(
        u,
        F.linear(dt, weights['dt']).transpose(1, 2),
        -torch.exp(weights['A_log']),
        B.transpose(1, 2),
        C.transpose(1, 2),
        D=weights['D'],
        z=z.transpose(1, 2),
        delta_bias=weights['dt_bias'],
        delta_softplus=True,
    )
    return y.transpose(1, 2)


def direction_weights(mixer: MambaMixer, i: int) -> dict[str, Tensor]:
    """What :func:`one_direction` needs of a mixer's direction."""
    return dict(
        conv=mixer.conv_weight[i],
        conv_bias=mixer.conv_bias[i],
        x=mixer.x_proj_weight[i],
        dt=mixer.dt_proj_weight[i],
        dt_bias=mixer.dt_proj_bias[i],
        A_log=mixer.A_log[i],
        D=mixer.D[i],
    )


def with_flips(mixer: MambaMixer, tokens: Tensor) -> Tensor:
    """The mixer as two one-directional passes between its projections, the second one on flipped copies."""
    x, z = mixer.in_proj(tokens).chunk(2, dim=-1)
    outputs = []
    for i in range(2):
        weights = direction_weights(mixer, i)
        outputs.append(one_direction(x.flip(1), z.flip(1), weights).flip(1) if i else one_direction(x, z, weights))
    return mixer.out_proj((outputs[0] + outputs[1]) * 0.5)


def two_mixers(mixer: MambaMixer, tokens: Tensor) -> Tensor:
    """The mixer as calls of two one-directional ones, as they are used elsewhere: the second one on flipped tokens."""

    def call(x: Tensor, i: int) -> Tensor:
        inner, gate = mixer.in_proj(x).chunk(2, dim=-1)
        return mixer.out_proj(one_direction(inner, gate, direction_weights(mixer, i)))

    return (call(tokens, 0) + call(tokens.flip(1), 1).flip(1)) * 0.5


def scan_inputs(batch: int, length: int, seed: int) -> dict[str, Tensor]:
    """Arguments of :func:`bidirectional_scan`."""
    generator = torch.Generator().manual_seed(seed)
    channels = 2 * WIDTH

    def sequence(rows: int) -> Tensor:
        return torch.randn(2, batch, length, rows, generator=generator).permute(1, 0, 3, 2)

    inputs = dict(
        u=sequence(channels),
        delta=sequence(channels),
        A=-torch.arange(1.0, STATES + 1).repeat(2, channels, 1),
        B=sequence(STATES),
        C=sequence(STATES),
        D=torch.ones(2, channels),
        z=sequence(channels)[:, 0],
        delta_bias=torch.full((2, channels), -3.0),
    )
    return {name: x.requires_grad_() for name, x in inputs.items()}


def scan_with_flips(u, delta, A, B, C, D, z, delta_bias, delta_softplus) -> Tensor:
    """Two scans, the second one on flipped copies."""
    outputs = []
    for i in range(2):
        sequences = [x[:, i] for x in (u, delta, B, C)] + [z]
        u_i, delta_i, B_i, C_i, z_i = (x.flip(-1) for x in sequences) if i else sequences
        out = selective_scan(u_i, delta_i, A[i], B_i, C_i, D[i], z_i, delta_bias[i], delta_softplus)
        outputs.append(out.flip(-1) if i else out)
    return (outputs[0] + outputs[1]) * 0.5


def transformers_mixer() -> tuple[nn.Module | None, str]:
    """Hugging Face's mixer in plain torch, or None and why."""
    try:
        from transformers import MambaConfig
        from transformers.models.mamba.modeling_mamba import MambaMixer as Mixer
    except ImportError as error:
        return None, f'transformers left out ({error}); see the top of this file for how to install it'
    config = MambaConfig(hidden_size=WIDTH, state_size=STATES, use_mambapy=False)
    return Mixer(config, layer_idx=0), ''


def on_our_operators(mixer: nn.Module, tokens: Tensor) -> Tensor:
    """The mixer of transformers with its own parameters, computed by mmmap's operators."""
    x, z = mixer.in_proj(tokens).chunk(2, dim=-1)
    weights = dict(
        conv=mixer.conv1d.weight[:, 0],
        conv_bias=mixer.conv1d.bias,
        x=mixer.x_proj.weight,
        dt=mixer.dt_proj.weight,
        dt_bias=mixer.dt_proj.bias,
        A_log=mixer.A_log,
        D=mixer.D,
    )
    return mixer.out_proj(one_direction(x, z, weights))


def candidates(
    batch: int, length: int, seed: int, compiled: bool
) -> tuple[dict[str, dict[str, Callable[[], tuple]]], str]:
    """Groups of things that compute the same, each a function that gives output and gradients; and a remark."""
    torch.manual_seed(seed)
    tokens = torch.randn(batch, length, WIDTH, requires_grad=True)

    def step(function: Callable[..., Tensor], wanted: list[Tensor]) -> tuple:
        out = function()
        return out, *torch.autograd.grad(out, wanted, torch.ones_like(out))

    def of(module: nn.Module, function: Callable[..., Tensor]) -> Callable[[], tuple]:
        return functools.partial(step, function, [tokens, *module.parameters()])

    mixer = MambaMixer(WIDTH, STATES)
    scan = {**scan_inputs(batch, length, seed), 'delta_softplus': True}
    tensors = [x for x in scan.values() if isinstance(x, Tensor)]
    groups = {
        'bidirectional mixer': {
            'one call': of(mixer, lambda: mixer(tokens)),
            'two calls, flips': of(mixer, lambda: with_flips(mixer, tokens)),
        },
        'bidirectional mixer, projections too': {
            'one call': of(mixer, lambda: mixer(tokens)),
            'two calls, flips': of(mixer, lambda: two_mixers(mixer, tokens)),
        },
        'bidirectional scan': {
            'one call': functools.partial(step, lambda: bidirectional_scan(**scan), tensors),
            'two calls, flips': functools.partial(step, lambda: scan_with_flips(**scan), tensors),
        },
    }
    if compiled:
        encoder = HybridEncoder(WIDTH, 'MMMT', num_heads=12, d_state=STATES)
        graph = torch.compile(encoder, fullgraph=True)
        groups["encoder 'MMMT'"] = {
            'torch.compile': of(encoder, lambda: graph(tokens)),
            'eager': of(encoder, lambda: encoder(tokens)),
        }
    theirs, remark = transformers_mixer()
    if theirs is not None:
        groups['one-directional mixer'] = {
            'mmmap operators': of(theirs, lambda: on_our_operators(theirs, tokens)),
            'transformers': of(theirs, lambda: theirs.slow_forward(tokens)),
        }
    return groups, remark


def check_agreement(group: dict[str, Callable[[], tuple]]) -> None:
    """Raise a RuntimeError if members of a group do not compute the same."""
    results = {name: step() for name, step in group.items()}
    first, expected = next(iter(results.items()))
    for name, found in results.items():
        for a, b in zip(found, expected, strict=True):
            if (a - b).abs().max() > 1e-4 * b.abs().max():
                raise RuntimeError(f'benchmark_mixer: {name!r} and {first!r} compute different things')


def draw(rows: list[dict], figure: Figure) -> None:
    """One panel a group at the longest length."""
    longest = [row for row in rows if row['length'] == max(r['length'] for r in rows)]
    figure.set_size_inches(3.2 * len(longest), 3)
    for axes, row in zip(figure.subplots(1, len(longest), squeeze=False)[0], longest, strict=True):
        axes.bar(list(row['ms']), list(row['ms'].values()))
        axes.set(title=f'{row["group"]}, L = {row["length"]}', ylabel='ms, forward + backward')


def main() -> None:
    """Measure and print."""
    args = parse_args()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    machine = describe_machine(args.seed, args.threads)
    print_machine(machine)
    print(f'\nforward + backward, batch {args.batch_size}, width {WIDTH}, {STATES} states; ms (peak MiB of tensors)')
    rows = []
    for length in LENGTHS:
        groups, remark = candidates(args.batch_size, length, args.seed, args.compile)
        for name, group in groups.items():
            check_agreement(group)
            times = time_in_turns(group, args.repeats, turns=5, warm_up=3)
            ms = {candidate: 1e3 * statistics.median(values) for candidate, values in times.items()}
            peaks = {candidate: peak_memory(call) for candidate, call in group.items()}
            (ours, fast), (other, slow) = ms.items()
            cells = ', '.join(f'{key} {ms[key]:.2f} ({peaks[key] / 2**20:.1f})' for key in group)
            print(f'{name:>22}, L = {length}: {cells}; {ours} takes {fast / slow:.2f} of {other} ({slow / fast:.1f}x)')
            rows.append(dict(group=name, length=length, ms=ms, peak_bytes=peaks))
    if remark:
        print(remark)
    write_report(args, dict(machine=machine, batch_size=args.batch_size, rows=rows), lambda f: draw(rows, f))


if __name__ == '__main__':
    with one_line_errors():
        main()
