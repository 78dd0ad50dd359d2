"""Time a pretraining step, and the same step without its scans, in one run.

Steps of the model as it is and with every selective scan replaced by the identity alternate, so that both see the same
machine; the difference is what the scans cost. Prints parameters, FLOPs, images per second and peak memory too.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import mmcv
import mmengine
import mmpretrain
import psutil
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mmmap
from mmmap.engine.errors import one_line_errors
from mmmap.models.layers import mamba_mixer
from mmmap.ops import use_backend
from mmmap.registry import MODELS

DEFAULT_CONFIG = Path(__file__).resolve().parents[2] / 'configs/map/map_hybrid-tiny-p16_8xb256-amp-coslr-1600e_in1k.py'


def identity_scan(u: Tensor, *_args, **_kwargs) -> Tensor:
    """Stands in for the selective scan: passes its input on."""
    return u


def make_step(model: nn.Module, inputs: Tensor) -> Callable[[], None]:
    """One step of training: loss, gradients, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        model.loss(inputs)['loss'].backward()
        # Without its scans a mixer's step-size parameters get no gradient; AdamW passes over them.
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def time_alternately(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, the steps taking turns, after one warm-up each."""
    seconds = {name: [] for name in steps}
    for i in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(step: Callable[[], None]) -> int:
    """Largest sum of tensors alive at once during a step, in bytes, beyond those before it."""
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    alive = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            alive += event.nbytes()
            peak = max(peak, alive)
    return peak


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', default=DEFAULT_CONFIG, help='config of the model (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--backend', default='auto', help='backend of the scans (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--json', help='also write the figures to this file')
    args = parser.parse_args()
    with one_line_errors():
        cfg = Config.fromfile(args.config)
    torch.manual_seed(args.seed)
    model = MODELS.build(cfg.model).train()
    inputs = torch.randn(args.batch_size, model.backbone.in_channels, *model.backbone.img_size)
    step = make_step(model, inputs)

    def step_without_scan() -> None:
        with mock.patch.object(mamba_mixer, 'selective_scan', identity_scan):
            step()

    with use_backend(args.backend):
        seconds = time_alternately({'step': step, 'without scan': step_without_scan}, args.repeats)
        memory = peak_memory(step)
        with FlopCounterMode(display=False) as counter:
            model.loss(inputs)['loss'].backward()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    share = 1 - medians['without scan'] / medians['step']
    result = dict(
        config=Path(args.config).stem,
        batch_size=args.batch_size,
        backend=args.backend,
        seed=args.seed,
        repeats=args.repeats,
        parameters=sum(p.numel() for p in model.parameters()),
        gflops_per_image=counter.get_total_flops() / args.batch_size / 1e9,
        seconds=seconds,
        median_seconds=medians,
        scan_share=share,
        images_per_second=args.batch_size / medians['step'],
        peak_memory_mib=memory / 2**20,
        process_memory_mib=psutil.Process().memory_info().rss / 2**20,
        threads=torch.get_num_threads(),
        cpu=platform.processor() or platform.machine(),
        versions=dict(
            mmmap=mmmap.__version__,
            torch=torch.__version__,
            mmengine=mmengine.__version__,
            mmcv=mmcv.__version__,
            mmpretrain=mmpretrain.__version__,
            python=platform.python_version(),
        ),
    )
    print(f'{result["config"]}, batch {args.batch_size}')
    print(f'{result["threads"]} threads, seed {args.seed}, {args.repeats} steps, torch {torch.__version__}')
    print(f'parameters               {result["parameters"] / 1e6:10.2f} M')
    print(f'forward + backward       {result["gflops_per_image"]:10.2f} GFLOP an image')
    for name, values in seconds.items():
        print(f'{name:24s} {medians[name] * 1e3:10.1f} ms (median; {min(values) * 1e3:.1f} to {max(values) * 1e3:.1f})')
    print(f'share of the scans       {share * 100:10.1f} %')
    print(f'speed                    {result["images_per_second"]:10.1f} images/s')
    print(f'tensors at the peak      {result["peak_memory_mib"]:10.1f} MiB beyond weights and optimizer state')
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
