"""Time the first step under torch.compile, and the steps behind it: by blocks as CompileHook does, and as a whole.

    python tools/benchmarks/benchmark_compile.py [CONFIG] [--batch-size 2] [--rounds 3]

Each way is a process of its own, with empty caches, and the ways take turns. torch's compiler is loaded and warm before
the first step, so that the first step holds the model's own share. A step is forward and backward in float32, on a GPU
in bfloat16 mixed precision.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / 'configs/map/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k.py'
WAYS = ('eager', 'whole', 'blocks')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', default=DEFAULT_CONFIG, help='of a pretraining model (default: tiny)')
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=3, help='processes for each way (default: %(default)s)')
    parser.add_argument('--repeats', type=int, default=9, help='timed steps behind the first (default: %(default)s)')
    parser.add_argument('--mode', default='default', help='as of torch.compile (default: %(default)s)')
    parser.add_argument('--backend', default='inductor', help='as of torch.compile (default: %(default)s)')
    parser.add_argument('--way', choices=WAYS, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(args: argparse.Namespace) -> tuple[float, float]:
    """Seconds of the first step, and the median of the steps behind it, in this process."""
    import torch
    from mmengine.device import get_device

    from mmmap.apis import build_model, example_batches
    from mmmap.engine.hooks.compile_hook import compile_parts
    from mmmap.engine.launch import read_config

    cfg = read_config(args.config)
    device = get_device()
    example, *_ = example_batches(cfg, build_model(cfg).to(device), args.batch_size, train=True).values()
    model = example.model.train()
    warm = torch.compile(lambda x: (x.sin() * 2).sum(), backend=args.backend)
    warm(torch.ones(8, device=device, requires_grad=True)).backward()
    if args.way == 'blocks':
        compile_parts(model, args.mode, args.backend)
    if args.way == 'whole':
        for part in model.modules():
            if getattr(part, 'compilable', False):
                part.compile(backend=args.backend, mode=args.mode)

    def step() -> float:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device != 'cpu'):
            loss, _ = model.parse_losses(model(example.inputs, example.samples, mode='loss'))
        loss.backward()
        loss.item()
        return time.perf_counter() - start

    first, *others = (step() for _ in range(3 + args.repeats))
    return first, statistics.median(others[2:])


def main() -> None:
    """Measure and print."""
    args = parse_args()
    if args.way:
        print(*measure(args))
        return
    seconds: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            with tempfile.TemporaryDirectory() as cache:
                env = os.environ | dict(TORCHINDUCTOR_CACHE_DIR=cache, TRITON_CACHE_DIR=cache)
                output = subprocess.run(
                    [sys.executable, *sys.argv, '--way', way], env=env, stdout=subprocess.PIPE, check=True
                )
            seconds[way].append([float(word) for word in output.stdout.decode().splitlines()[-1].split()])
    for way, runs in seconds.items():
        first, later = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f'{way:8} first step {first:7.1f} s   later steps {later * 1e3:7.1f} ms')


if __name__ == '__main__':
    main()
