"""Check and time mmmap on a GPU in one command: tables, a JSON file and a plot.

    python tools/benchmarks/gpu_report.py [--sections SECTION ...] [--json FILE] [--plot FILE]

Sections, in this order:

scan-check    every scan backend against float64: output and gradients, float32 and bfloat16, 1 to 4096 positions
fixtures      the model against stored numbers of the released code
sync          no wait of the host in a step, no graph break in encoder and decoder
guard         a step with the guard against NaN beside a plain one; the guard must work without a wait of the host
scan-speed    the triton scan against mamba-ssm with flips, and against the bandwidth of a copy
step          the pretraining step against that of the released code, see gpu/released_way.py
stability     many steps in bfloat16 without NaN
vit           the step of MAE on a ViT with as many parameters

If a section fails, the others still run; the exit status is then 1. Triton compiles each variant of its backward kernel
once, in about 15 seconds: the first run on a machine takes several minutes, which are not in the timings. With
``--device cpu`` the sections that need no GPU can be tried out.
"""

import argparse
import importlib.metadata
import json
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu import NAMES, ROOT

from mmmap.command_line import add_output_arguments

SECTIONS = ('scan-check', 'fixtures', 'sync', 'guard', 'scan-speed', 'step', 'stability', 'vit')


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sections', nargs='+', choices=SECTIONS, default=list(SECTIONS), metavar='SECTION')
    parser.add_argument('--archs', nargs='+', default=list(NAMES), help=f'of {", ".join(NAMES)}, or config files')
    parser.add_argument('--lengths', type=int, nargs='+', help='sequence lengths of scan-check')
    parser.add_argument('--fixtures', nargs='+', default=[ROOT / 'tests/data'], help='folders of map_*.npz')
    parser.add_argument('--batch-size', type=int, default=256, help='the fixed batch (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=10, help='steps of a timed run (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=3, help='timed runs; the median counts')
    parser.add_argument(
        '--milliseconds', type=int, default=60, help='time spent on timing a scan (default: %(default)s)'
    )
    parser.add_argument('--no-compile', dest='compile', action='store_false', help='leave torch.compile out')
    parser.add_argument('--ways', nargs='+', metavar='WAY', help='implementations to time in step')
    parser.add_argument('--no-largest', dest='largest', action='store_false', help='leave the largest batch out')
    parser.add_argument('--stability-steps', type=int, default=2000)
    parser.add_argument('--stability-batch', type=int, default=64)
    parser.add_argument('--images', metavar='DIR', help='images of stability (default: generated ones)')
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--seed', type=int, default=0)
    add_output_arguments(parser)
    args = parser.parse_args()
    import torch
    from gpu import scan, step

    args.lengths = args.lengths or scan.LENGTHS
    if unknown := set(args.ways or ()) - set(step.ALL_WAYS):
        parser.error(f'--ways {", ".join(sorted(unknown))}: choose from {", ".join(step.ALL_WAYS)}')
    for name in ('batch_size', 'steps', 'runs', 'milliseconds', 'stability_steps', 'stability_batch'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} {getattr(args, name)}: must be positive')
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('no CUDA device is seen by torch: run this on a GPU machine, or try it out with --device cpu')
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()

import torch
from gpu import checks, fixtures, guard, scan, step, vit
from gpu.common import free_memory, measure_rates, one_line
from matplotlib.figure import Figure
from mmengine.logging import MMLogger

from mmmap.engine.error_report import one_line_errors
from mmmap.utils.benchmark import describe_machine, print_machine, write_report

CALLS = {
    'scan-check': scan.scan_check,
    'fixtures': fixtures.fixtures,
    'sync': checks.sync,
    'guard': guard.guard,
    'scan-speed': scan.scan_speed,
    'step': step.step,
    'stability': checks.stability,
    'vit': vit.vit,
}


def describe(args: argparse.Namespace) -> dict:
    """The machine, and the packages that are compared with."""
    machine = describe_machine(args.seed, torch.get_num_threads())
    machine |= dict(device=args.device, cuda=torch.version.cuda)
    for name in ('mamba-ssm', 'causal-conv1d'):
        try:
            machine[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return machine


def save(path: str | None, report: dict) -> None:
    """Write what there is so far, so that a run that is cut off has not been for nothing."""
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(report, indent=1, default=str) + '\n')


def run_sections(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """Run what was asked for; errors are kept in ``report['errors']``. Sections call ``args.save`` as they go on."""
    for name in SECTIONS:
        if name not in args.sections:
            continue
        print(f'\n== {name}', flush=True)
        torch.manual_seed(args.seed)
        start = time.perf_counter()
        try:
            CALLS[name](args, report, device)
        except Exception as error:
            if not isinstance(error, AssertionError):
                traceback.print_exc()
            report['errors'][name] = one_line(error)
            print(f'{name} failed: {one_line(error)}')
        report['seconds'][name] = round(time.perf_counter() - start, 1)
        print(f'({name}: {report["seconds"][name]:.0f} s)', flush=True)
        free_memory()
        args.save()


def draw(report: dict, figure: Figure) -> None:
    """Ratios of the scan, images a second and memory of the step."""
    figure.set_size_inches(11, 4)
    scans, steps = (report.get(key, {}).get('rows', []) for key in ('scan-speed', 'step'))
    steps = [row for row in steps if 'failed' not in row and row['batch'] == report['arguments']['batch_size']]
    axes = figure.subplots(1, 3)
    lengths = list(dict.fromkeys((row['length'], row['dtype']) for row in scans))
    for length, dtype in lengths:
        line = [row for row in scans if (row['length'], row['dtype']) == (length, dtype)]
        style = '-' if dtype == 'bfloat16' else '--'
        widths, ratios = ([row[key] for row in line] for key in ('channels', 'ratio_step'))
        axes[0].plot(widths, ratios, style, marker='o', label=f'L = {length}, {dtype}')
    axes[0].axhline(1, color='black', lw=0.8)
    axes[0].set(xlabel='channels', ylabel='mamba-ssm over triton, both passes', title='scan', xscale='log')
    if lengths:
        axes[0].legend(fontsize=7)
    models = list(dict.fromkeys(row['model'] for row in steps))
    ways = list(dict.fromkeys(row['way'] for row in steps))
    for panel, key in zip(axes[1:], ('images/s', 'GiB'), strict=True):
        for i, way in enumerate(ways):
            values = {row['model']: row.get(key, 0) for row in steps if row['way'] == way}
            places = [models.index(model) + i * 0.8 / len(ways) for model in values]
            panel.bar(places, list(values.values()), 0.8 / len(ways), align='edge', label=way)
        panel.set_xticks([i + 0.4 for i in range(len(models))], models)
        panel.set(title=f'pretraining step, {"images a second" if key == "images/s" else "peak memory, GiB"}')
    if ways:
        axes[2].legend(fontsize=7)


def main() -> None:
    """Run the report."""
    args = parse_args()
    device = torch.device(args.device)
    MMLogger.get_current_instance().setLevel('WARNING')  # It would list every parameter's weight decay.
    machine = describe(args)
    print_machine(machine)
    report = dict(
        machine=machine, arguments=vars(args) | dict(command=' '.join(sys.argv)), rates={}, errors={}, seconds={}
    )
    args.save = lambda: save(args.json, report)
    report['rates'] = measure_rates(device)
    print('one large matrix product in bfloat16 {matrix_tflops:.0f} TFLOP/s, copy {copy_gbytes:.0f} GB/s'.format_map(
        report['rates']
    ))  # fmt: skip
    run_sections(args, report, device)
    write_report(args, json.loads(json.dumps(report, default=str)), lambda figure: draw(report, figure))
    if report['errors']:
        print('failed: ' + '; '.join(f'{name}: {text}' for name, text in report['errors'].items()), file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    with one_line_errors():
        main()
