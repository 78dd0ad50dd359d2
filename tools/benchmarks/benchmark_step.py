"""Time a pretraining step with and without its scans, its parts, and a lower bound (floor) for each part.

    python tools/benchmarks/benchmark_step.py [CONFIG] [--batch-size 8] [--bfloat16] [--guard] [--json FILE]

The step and the step with every selective scan replaced by the identity take turns, so that the load of the machine is
the same. The parts come from torch's profiler. The floor is the least time of a part on this machine: its
floating-point operations divided by the rate of a large matrix product, or its bytes (inputs and outputs of every
tensor operation) divided by the bandwidth of a large copy, whichever is longer. Both are measured in the same run.
"""

import argparse
import functools
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from mmmap.command_line import add_output_arguments

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / 'configs/map/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k.py'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        nargs='?',
        default=DEFAULT_CONFIG,
        help='config of a pretraining model (default: tiny on ImageNet)',
    )
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--threads', type=int, help="(default: torch's)")
    parser.add_argument(
        '--bfloat16',
        action='store_true',
        help='also time the step in bfloat16 mixed precision, in turns with the others',
    )
    parser.add_argument(
        '--guard',
        action='store_true',
        help='also time the step with the guard against NaN, in turns with the plain step',
    )
    parser.add_argument('--backend', default='auto', help='backend of the scans (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    add_output_arguments(parser)
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import psutil
import torch
from matplotlib.figure import Figure
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from mmmap.apis import build_model, example_batches
from mmmap.engine.cpu_features import keep_freed_memory
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.launch import read_config
from mmmap.engine.step_guard import StepGuard
from mmmap.models.layers import mamba_mixer
from mmmap.models.selfsup.token_pretraining import TokenPretraining
from mmmap.ops import use_backend
from mmmap.utils.benchmark import describe_machine, peak_memory, print_machine, time_in_turns, write_report
from mmmap.utils.errors import UserError

# Parts of a step, and the operators that belong to them by a piece of their names; the first that fits counts.
PARTS = {
    'scan': ('scan', 'mmmap_native::bidirectional_forward', 'mmmap_native::bidirectional_backward'),
    'matrix products': ('aten::mm', 'aten::bmm', 'aten::addmm', 'aten::baddbmm', 'convolution'),
    'attention': ('scaled_dot_product',),
    'optimizer': ('fused_adamw',),
    'causal convolution': ('conv1d', 'conv_'),
}
REST = 'rest'
# An exponential counts as one floating-point operation. In vectors of float32 it is at least two additions to split
# off the integer, a polynomial of degree 5 and two integer operations: nine instructions of which a multiply-add, two
# operations, could have been any.
OPERATIONS_OF_EXP = 18


def part_of(name: str) -> str:
    """The part of a step that an operator belongs to."""
    return next((part for part, pieces in PARTS.items() if any(piece in name for piece in pieces)), REST)


class CountBytes(TorchDispatchMode):
    """Bytes of the inputs and outputs of every operator that is not a mere view, by part of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = {}
            tree_map_only(Tensor, lambda x: tensors.setdefault(id(x), x), (args, kwargs, out))
            self.bytes[part_of(func._schema.name)] += sum(x.nbytes for x in tensors.values())
        return out


def identity_scan(u: Tensor, *_args, **_kwargs) -> Tensor:
    """Stands in for the scan in both directions: passes one of them on."""
    return u[:, 0]


def make_step(model: nn.Module, inputs: Tensor, guarded: bool = False) -> Callable[..., None]:
    """One step of training: loss (in bfloat16 mixed precision if asked), gradients, AdamW; guarded as in a run."""
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True))
    guard = StepGuard(model, wrapper) if guarded else None

    def step(bfloat16: bool = False) -> None:
        if guard is not None:
            guard.start_iteration()
        with torch.autocast('cpu', torch.bfloat16, enabled=bfloat16):
            loss = model.loss(inputs)['loss']
        # Without its scans a mixer's step-size parameters get no gradient; AdamW passes over them.
        wrapper.update_params(loss)

    return step


def best_rates(repeats: int = 5) -> tuple[float, float]:
    """Operations a second of one large matrix product, bytes (read and written) a second of one large copy."""
    a, b = torch.randn(2, 2048, 2048).unbind()
    source = torch.randn(2**25)
    target = torch.empty_like(source)
    product, copy = (
        min(time_in_turns({'': call}, repeats)['']) for call in (lambda: torch.mm(a, b), lambda: target.copy_(source))
    )
    return 2 * 2048**3 / product, 2 * source.nbytes / copy


def profile_parts(step: Callable[[], None], repeats: int) -> dict[str, float]:
    """Seconds of each part in a step, by the profiler: the mean over some steps."""
    seconds = dict.fromkeys([*PARTS, REST], 0.0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(repeats):
            step()
    for event in profile.key_averages():
        seconds[part_of(event.key)] += event.self_cpu_time_total / 1e6 / repeats
    return seconds


def _attention_flops(q: tuple, k: tuple, v: tuple, *_args, **_kwargs) -> int:
    """The CPU's fused attention, which torch does not count."""
    return sdpa_flop_count(q, k, v)


def _attention_backward_flops(dout: tuple, q: tuple, k: tuple, v: tuple, *_args, **_kwargs) -> int:
    return sdpa_backward_flop_count(dout, q, k, v)


def count(model: nn.Module, inputs: Tensor, step: Callable[[], None]) -> tuple[dict[str, float], dict[str, int], float]:
    """Operations and bytes of each part of a step, and the operations of all with one for an exponential."""
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        model.loss(inputs)['loss'].backward()
    operations = defaultdict(float)
    for op, flops in counter.get_flop_counts()['Global'].items():
        operations[part_of(str(op).replace('.', '::'))] += flops
    batch, length, _ = model.reconstruct(inputs).latent.shape
    states = sum(module.A_log.numel() for module in model.modules() if isinstance(module, mamba_mixer.MambaMixer))
    exponentials = 2 * batch * length * states  # again in backward
    operations['scan'] += (OPERATIONS_OF_EXP - 1) * exponentials
    with CountBytes() as counted:
        step()
    return operations, counted.bytes, counter.get_total_flops()


def draw(parts: dict[str, dict[str, float]], title: str, figure: Figure) -> None:
    """Bars of the parts, their floors as lines."""
    figure.set_size_inches(7, 3)
    axes = figure.subplots()
    axes.barh(list(parts), [part['ms'] for part in parts.values()], label='measured')
    axes.barh(list(parts), [part['floor_ms'] for part in parts.values()], height=0.3, color='black', label='floor')
    axes.set(xlabel='ms of a step', title=title)
    axes.invert_yaxis()
    axes.legend()


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    args.threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    torch.manual_seed(args.seed)
    with one_line_errors():
        cfg = read_config(args.config)
        model = build_model(cfg).train()
        if not isinstance(model, TokenPretraining):
            raise UserError(
                f'{args.config}: {type(model).__name__} is no MAP, MAE, AR or SimMIM model, whose step this takes '
                'apart: benchmark_throughput.py --train times a step of any model'
            )
        example = example_batches(cfg, model, args.batch_size)['']
    inputs = example.inputs
    step = make_step(model, inputs)

    def step_without_scan() -> None:
        with mock.patch.object(mamba_mixer, 'bidirectional_scan', identity_scan):
            step()

    machine = describe_machine(args.seed, args.threads)
    print_machine(machine)
    steps = {'step': step, 'without scan': step_without_scan}
    if args.bfloat16:
        steps['step in bfloat16'] = functools.partial(step, bfloat16=True)
    with use_backend(args.backend):
        # Twice, as the memory that the one leaves does not fit the other.
        for call in [*steps.values()] * 2:
            call()
        seconds = time_in_turns(steps, 1, turns=args.repeats, warm_up=0)
        if args.guard:
            pair = {'step': step, 'step with guard': make_step(model, inputs, guarded=True)}
            pair = time_in_turns(pair, 1, turns=args.repeats, warm_up=0)
            seconds['step with guard'] = pair['step with guard']
        memory = peak_memory(step)
        profiled = profile_parts(step, max(1, args.repeats // 3))
        operations, moved, flops = count(model, inputs, step)
        flop_rate, byte_rate = best_rates()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    parts = {
        name: dict(
            ms=1e3 * spent,
            gflop=operations[name] / 1e9,
            mib=moved[name] / 2**20,
            floor_ms=1e3 * max(operations[name] / flop_rate, moved[name] / byte_rate),
        )
        for name, spent in profiled.items()
    }
    share = 1 - medians['without scan'] / medians['step']
    parameters = sum(p.numel() for p in model.parameters())
    print(f'{Path(args.config).stem}, batch {args.batch_size}, {args.repeats} steps')
    print(f'parameters               {parameters / 1e6:10.2f} M')
    print(f'forward + backward       {flops / args.batch_size / 1e9:10.2f} GFLOP a sample')
    for name, values in seconds.items():
        print(f'{name:24s} {medians[name] * 1e3:10.1f} ms (median; {min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})')
    if args.guard:
        # Turn by turn, so that what slows the machine down slows both.
        turns = zip(pair['step with guard'], pair['step'], strict=True)
        guard_ratio = statistics.median(guarded / plain for guarded, plain in turns)
        print(f'with guard over without  {guard_ratio:10.4f}')
    print(f'share of the scans       {share * 100:10.1f} %')
    print(f'speed                    {args.batch_size / medians["step"]:10.1f} {example.unit}/s')
    print(f'tensors at the peak      {memory / 2**20:10.1f} MiB beyond weights and optimizer state')
    print(f'\none large matrix product {flop_rate / 1e9:.1f} GFLOP/s, one large copy {byte_rate / 1e9:.1f} GB/s')
    print(f'{"part (profiler on)":24s} {"ms":>8} {"GFLOP":>8} {"MiB":>8} {"floor ms":>9} {"over floor":>11}')
    total = dict(ms=sum(part['ms'] for part in parts.values()), floor_ms=sum(p['floor_ms'] for p in parts.values()))
    for name, part in (parts | {'all': total}).items():
        work = f'{part["gflop"]:8.2f} {part["mib"]:8.0f}' if 'gflop' in part else ' ' * 17
        ratio = part['ms'] / part['floor_ms']
        print(f'{name:24s} {part["ms"]:8.1f} {work} {part["floor_ms"]:9.1f} {ratio:10.2f}x')
    report = dict(
        machine=machine,
        config=Path(args.config).stem,
        batch_size=args.batch_size,
        backend=args.backend,
        repeats=args.repeats,
        parameters=parameters,
        gflops_per_sample=flops / args.batch_size / 1e9,
        seconds=seconds,
        median_seconds=medians,
        scan_share=share,
        **(dict(guard_ratio=guard_ratio) if args.guard else {}),
        samples_per_second=args.batch_size / medians['step'],
        peak_memory_mib=memory / 2**20,
        process_memory_mib=psutil.Process().memory_info().rss / 2**20,
        matrix_product_gflops=flop_rate / 1e9,
        copy_gbytes=byte_rate / 1e9,
        parts=parts,
    )
    title = f'{report["config"]}, batch {args.batch_size}, {args.threads} threads'
    write_report(args, report, lambda figure: draw(parts, title, figure))


if __name__ == '__main__':
    main()
