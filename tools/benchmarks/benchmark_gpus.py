"""Time the pretraining step on one and on several GPUs, and compare their losses.

    python tools/benchmarks/benchmark_gpus.py [--gpus 1 2 4 8] [--models tiny:ddp:256 ...] [--compile [MODE]]
        [--json FILE] [--plot FILE]

Every GPU gets its own batch, so that the work grows with the GPUs; bfloat16, fused AdamW. First each model takes a few
steps in float32 on one batch that the GPUs share: its losses must be those of one GPU, up to rounding. ``--device cpu``
tries the benchmark out with gloo processes.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu import NAMES

from mmmap.command_line import COMPILE_MODES, add_output_arguments

WRAPPERS = ('ddp', 'fsdp')


def parse_model(text: str) -> dict:
    """``MODEL:WRAPPER:BATCH``, the batch that of each GPU."""
    try:
        model, wrapper, batch = text.rsplit(':', 2)
        found = dict(model=model, wrapper=wrapper, batch=int(batch))
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r}: write MODEL:WRAPPER:BATCH, as tiny:ddp:256') from None
    if wrapper not in WRAPPERS:
        raise argparse.ArgumentTypeError(f'{text!r}: {wrapper!r} is none of {", ".join(WRAPPERS)}')
    if found['batch'] < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: the batch must be positive')
    if model not in (*NAMES, 'large', 'huge') and not Path(model).is_file():
        raise argparse.ArgumentTypeError(f'{text!r}: {model!r} is neither a size nor a config file')
    return found


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    defaults = ['tiny:ddp:256', 'base:ddp:256', 'huge:fsdp:32']
    parser.add_argument('--gpus', type=int, nargs='+', help='numbers of GPUs (default: 1, 2, 4 ... up to all)')
    parser.add_argument('--models', type=parse_model, nargs='+', default=[parse_model(text) for text in defaults],
                        metavar='MODEL:WRAPPER:BATCH', help=f'(default: {" ".join(defaults)})')  # fmt: skip
    parser.add_argument('--steps', type=int, default=10, help='steps of a timed run (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=3, help='timed runs; the median counts')
    parser.add_argument('--check-batch', type=int, default=16, help='images that all GPUs share (default: %(default)s)')
    parser.add_argument('--check-steps', type=int, default=4, help='(default: %(default)s)')
    parser.add_argument(
        '--tolerance', type=float, default=1e-4, help='relative tolerance of losses (default: %(default)s)'
    )
    parser.add_argument('--compile', nargs='?', const='default', choices=list(COMPILE_MODES),
                        help='as of tools/train.py (default: eager)')  # fmt: skip
    parser.add_argument('--device', choices=['cuda', 'cpu'], default='cuda')
    parser.add_argument('--seed', type=int, default=0)
    add_output_arguments(parser)
    args = parser.parse_args()
    import torch

    here = torch.cuda.device_count()
    if args.device == 'cuda' and not here:
        parser.error('no CUDA device is seen by torch: run this on a GPU machine, or try it out with --device cpu')
    if args.gpus is None:
        args.gpus = [2**i for i in range(max(here, 2).bit_length()) if 2**i <= max(here, 2)]
    args.gpus = sorted({1, *args.gpus})
    for gpus in args.gpus:
        if gpus < 1 or (args.device == 'cuda' and gpus > here):
            parser.error(f'--gpus {gpus}: there are {here}')
        if args.check_batch % gpus:
            parser.error(f'--check-batch {args.check_batch}: not a multiple of --gpus {gpus}')
    for name in ('steps', 'runs', 'check_batch', 'check_steps'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} {getattr(args, name)}: must be positive')
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()

import torch
from gpu.common import format_table
from matplotlib.figure import Figure

from mmmap.engine.error_report import one_line_errors
from mmmap.utils.benchmark import describe_machine, print_machine, write_report

WORKER = Path(__file__).parent / 'gpu/worker.py'
COLUMNS = {
    'model': '', 'wrapper': '', 'gpus': 'd', 'batch': 'd', 'images/s': '.0f', 'of linear': '.1%', 'ms': '.1f',
    'GiB a GPU': '.1f', 'loss': '.6f', 'to one GPU': '.1e',
}  # fmt: skip


def launch(model: dict, gpus: int, args: argparse.Namespace) -> dict:
    """Run the worker in so many processes and return what the first of them found.

    Raises:
        RuntimeError: With the end of what they said, if they failed.
    """
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    names = ('steps', 'runs', 'check_batch', 'check_steps', 'compile', 'device', 'seed')
    spec = model | {name: getattr(args, name) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / 'result.json'
        command = [sys.executable, '-m', 'torch.distributed.run', f'--nproc-per-node={gpus}']
        command += ['--master-addr=127.0.0.1', f'--master-port={port}', str(WORKER), json.dumps(spec), str(result)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not result.is_file():
            raise RuntimeError(f'{model["model"]} on {gpus}: {done.stderr[-2000:]}')
        return json.loads(result.read_text())


def compare(rows: list[dict]) -> None:
    """Add to each row its share of linear growth, and the largest difference of its losses to those of one GPU."""
    first = {(row['model'], row['wrapper']): row for row in rows if row['gpus'] == 1}
    for row in rows:
        one = first[row['model'], row['wrapper']]
        row['of linear'] = row['images/s'] / row['gpus'] / one['images/s']
        row['loss'] = row['losses'][-1]
        row['to one GPU'] = max(abs(a - b) / abs(b) for a, b in zip(row['losses'], one['losses'], strict=True))


def draw(rows: list[dict], figure: Figure) -> None:
    """Images a second and memory against the number of GPUs."""
    figure.set_size_inches(8, 3.5)
    speed, memory = figure.subplots(1, 2)
    for key in dict.fromkeys((row['model'], row['wrapper']) for row in rows):
        line = [row for row in rows if (row['model'], row['wrapper']) == key]
        gpus = [row['gpus'] for row in line]
        label = f'{Path(key[0]).stem}, {key[1]}'
        speed.plot(gpus, [row['images/s'] for row in line], marker='o', label=label)
        if 'GiB a GPU' in line[0]:
            memory.plot(gpus, [row['GiB a GPU'] for row in line], marker='o', label=label)
    speed.set(xlabel='GPUs', ylabel='images/s', xscale='log', yscale='log')
    memory.set(xlabel='GPUs', ylabel='peak memory, GiB a GPU', xscale='log')
    speed.legend(fontsize=7)


def main() -> None:
    """Run the benchmark."""
    args = parse_args()
    machine = describe_machine(args.seed, torch.get_num_threads()) | dict(gpus=torch.cuda.device_count())
    print_machine(machine)
    rows = []
    for model in args.models:
        for gpus in args.gpus:
            rows.append(model | dict(gpus=gpus) | launch(model, gpus, args))
            speed, losses = rows[-1]['images/s'], rows[-1]['losses']
            print(f'{model["model"]}, {model["wrapper"]}, {gpus}: {speed:.0f} images/s, losses {losses}', flush=True)
    compare(rows)
    print(format_table(rows, COLUMNS))
    write_report(args, dict(machine=machine, rows=rows), lambda figure: draw(rows, figure))
    wrong = [f'{row["model"]} on {row["gpus"]}' for row in rows if not row['to one GPU'] <= args.tolerance]
    if wrong:
        sys.exit(f'error: other losses than on one GPU: {", ".join(wrong)}')


if __name__ == '__main__':
    with one_line_errors():
        main()
