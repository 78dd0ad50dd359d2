"""The pretraining step: ours, eager and compiled, against that of the released code."""

import argparse
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmmap.engine.hooks.compile_hook import compile_parts
from mmmap.registry import MODELS

from .common import (
    build_model,
    count_parameters,
    format_table,
    free_memory,
    load_config,
    one_line,
    peak_bytes,
    random_images,
    seconds_of_steps,
)
from .released_way import WAYS, Kernels, ReleasedWay, mamba_kernels, plain_kernels

EAGER, COMPILED = 'mmmap, eager', 'mmmap, compiled'
# Checkpointed as with_cp='selective' does.
LEAN, LEAN_COMPILED = 'mmmap, eager, selective', 'mmmap, compiled, selective'
# Compiled as mode='reduce-overhead' does.
GRAPHS = 'mmmap, compiled, CUDA graphs'
RELEASED = {way: f'released way, {way}' for way in WAYS}
ALL_WAYS = (EAGER, LEAN, COMPILED, LEAN_COMPILED, GRAPHS, *RELEASED.values())
COLUMNS = {
    'model': '',
    'way': '',
    'batch': 'd',
    'images/s': '.0f',
    'ms': '.1f',
    'GPU ms': '.1f',
    'GiB': '.1f',
    'of matrix rate': '.1%',
    'compile s': '.0f',
}


def make_step(
    parameters: list[nn.Parameter], loss: Callable[[], Tensor], device: torch.device, read_loss: bool
) -> Callable[[], Tensor]:
    """Loss in bfloat16 (autocast), gradients, fused AdamW; ``read_loss`` lets the host wait for the loss."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.05, fused=True)

    def step() -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if read_loss:
            value.item()
        return value.detach()

    return step


def count_work(cfg: Config) -> tuple[int, float]:
    """Parameters, and operations per image: matrix products, convolutions, attention; both passes, no scans."""
    with torch.device('meta'):  # Nothing is computed.
        model = MODELS.build(cfg.model).train()
        images = random_images(model, 2, torch.device('meta'))
        with FlopCounterMode(display=False) as counter:
            model.loss(images)['loss'].backward()
    counts = counter.get_flop_counts()['Global']
    flops = sum(flops for op, flops in counts.items() if 'mmmap' not in str(op)) / len(images)
    return count_parameters(model), flops


def busiest_kernels(step: Callable[[], Tensor], device: torch.device, steps: int = 2) -> tuple[float, list[dict]]:
    """Milliseconds of the kernels of a step, and the 30 slowest kernels; on a CPU, operators."""
    cuda = device.type == 'cuda'
    activity = torch.profiler.ProfilerActivity.CUDA if cuda else torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity]) as profiler:
        seconds_of_steps(step, device, steps, 1)
    attribute = 'self_device_time_total' if cuda else 'self_cpu_time_total'
    kernels = [
        dict(kernel=event.key[:120], calls=event.count / steps, ms=getattr(event, attribute) / 1e3 / steps)
        for event in profiler.key_averages()
    ]
    kernels.sort(key=lambda kernel: -kernel['ms'])
    return sum(kernel['ms'] for kernel in kernels), kernels[:30]


def measure(
    make: Callable[[int], Callable[[], Tensor]], batch: int, steps: int, runs: int, device: torch.device
) -> dict:
    """Speed, peak memory, loss and kernels of the steps that ``make(batch)`` gives."""
    free_memory()
    with peak_bytes(device) as peak:
        step = make(batch)
        warm_up = seconds_of_steps(step, device, 1, 2)
        seconds = seconds_of_steps(step, device, steps, runs)
        loss = step().item()
    row = dict(batch=batch, seconds=seconds, first_step=warm_up[0], loss=loss)
    row['GPU ms'], row['kernels'] = busiest_kernels(step, device)
    row['ms'] = 1e3 * statistics.median(seconds)
    row['images/s'] = batch / statistics.median(seconds)
    if peak:
        row |= dict(peak_bytes=peak[0], GiB=peak[0] / 2**30)
    return row


def largest_batch(row: dict, parameters: int, device: torch.device) -> int:
    """Batch, a multiple of 32, that should fill 90 % of the GPU.

    By the peak at another batch, of which 16 bytes a parameter (weight, gradient, two averages) are there at any batch.
    """
    fixed = 16 * parameters
    total = torch.cuda.get_device_properties(device).total_memory
    per_image = (row['peak_bytes'] - fixed) / row['batch']
    return int((0.9 * total - fixed) / per_image) // 32 * 32


def _try(row: dict, measured: Callable[[], dict], rows: list[dict]) -> dict | None:
    """Measure a row and keep it. After an error, print it and go on with the other rows."""
    try:
        rows.append(row | measured())
    except Exception as error:
        rows.append(row | dict(failed=one_line(error)))
        print(f'{row}: {one_line(error)}', flush=True)
    free_memory()
    return rows[-1] if 'failed' not in rows[-1] else None


def time_model(
    name: str, cfg: Config, args: argparse.Namespace, device: torch.device, kernels: Kernels | None
) -> list[dict]:
    """All ways of one model at the fixed batch and at the largest that fits.

    Args:
        name: Of the model, for the table.
        cfg: With ``model``.
        args: With ``batch_size``, ``seed``, ``steps``, ``runs``, ``compile``, ``largest`` and ``ways``.
        device: Where to run.
        kernels: What the released way computes with; None leaves it out.

    Returns:
        list[dict]: A row for each way and batch, with ``failed`` instead of figures where it did not run.
    """

    def ours(compiled: str | None = None, selective: bool = False) -> Callable[[int], Callable[[], Tensor]]:
        def make(batch: int) -> Callable[[], Tensor]:
            model = build_model(cfg, device, args.seed)
            if selective:
                model.backbone.encoder.with_cp = 'selective'
            images = random_images(model, batch, device)
            if compiled:
                compile_parts(model, compiled)
            return make_step(list(model.parameters()), lambda: model.loss(images)['loss'], device, read_loss=False)

        return make

    def theirs(way: str) -> Callable[[int], Callable[[], Tensor]]:
        def make(batch: int) -> Callable[[], Tensor]:
            np.random.seed(args.seed)
            source = build_model(cfg, device, args.seed)
            ratio, images = source.masking.high, random_images(source, batch, device)
            model = ReleasedWay(source, way, kernels)
            loss = lambda: model(images, model.draw_mask(batch, ratio))  # noqa: E731
            return make_step(list(model.parameters()), loss, device, read_loss=True)

        return make

    parameters, flops = count_work(cfg)
    ways = {EAGER: ours(), LEAN: ours(selective=True)}
    if args.compile:
        ways |= {COMPILED: ours('default'), LEAN_COMPILED: ours('default', True)}
        if device.type == 'cuda':
            ways[GRAPHS] = ours('reduce-overhead')
    if kernels is not None:
        ways |= {RELEASED[way]: theirs(way) for way in WAYS}
    if args.ways:
        if missing := [way for way in args.ways if way not in ways]:
            raise ValueError(f'--ways: {", ".join(missing)} cannot run here')
        ways = {way: make for way, make in ways.items() if way in args.ways}
    rows: list[dict] = []
    for way, make in ways.items():
        head = dict(model=name, way=way)
        row = _try(head, lambda make=make: measure(make, args.batch_size, args.steps, args.runs, device), rows)
        if row and way in (COMPILED, LEAN_COMPILED, GRAPHS):
            row['compile s'] = row['first_step']
        # Of the released ways, 'inner' is the one that needs less memory.
        if row and args.largest and way in (EAGER, RELEASED['inner']) and 'peak_bytes' in row:
            batch = largest_batch(row, parameters, device)
            _try(head, lambda make=make, batch=batch: measure(make, batch, max(2, args.steps // 2), 1, device), rows)
    for row in rows:
        row |= dict(parameters=parameters, gflops_per_image=flops / 1e9)
    return rows


def same_loss(cfg: Config, kernels: Kernels, args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Our loss, and the differences of the released ways on the same weights, images and mask, in float32."""
    model = build_model(cfg, device, args.seed).eval()
    images = random_images(model, 4, device)
    found = {}
    with torch.no_grad():
        for way in WAYS:
            other = ReleasedWay(model, way, kernels).eval()
            mask = other.draw_mask(len(images), model.masking.high)
            found['loss'] = model.reconstruct(images, mask).loss().item()
            found[RELEASED[way]] = other(images, mask).item() - found['loss']
    return found


def compare(rows: list[dict]) -> list[dict]:
    """For each model at the fixed batch: our speed over the fastest released way, and our memory over the smallest."""
    by_model: dict[str, dict[str, dict]] = defaultdict(dict)
    for row in rows:
        if 'failed' not in row:
            by_model[row['model']].setdefault(row['way'], row)  # The first is that of the fixed batch.
    lines = []
    for model, ways in by_model.items():
        theirs = [ways[name] for name in RELEASED.values() if name in ways]
        for name in (EAGER, LEAN, COMPILED, LEAN_COMPILED, GRAPHS):
            if name in ways and theirs:
                line = {'model': model, 'way': name, 'batch': ways[name]['batch']}
                line['images/s, x'] = ways[name]['images/s'] / max(row['images/s'] for row in theirs)
                if 'peak_bytes' in ways[name]:
                    line['memory, x'] = ways[name]['peak_bytes'] / min(row['peak_bytes'] for row in theirs)
                lines.append(line)
    return lines


def add_shares(rows: list[dict], report: dict) -> None:
    """Add to each row the share of the measured matrix rate."""
    for row in rows:
        if 'images/s' in row:
            rate = row['gflops_per_image'] * row['images/s'] / 1e3
            row['of matrix rate'] = rate / report['rates']['matrix_tflops']


def step(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """Images a second and peak memory of ours and of the released way, at each size."""
    kernels = mamba_kernels() if device.type == 'cuda' else plain_kernels()
    result = report['step'] = dict(rows=[], same_loss={}, compare=[])
    for arch in args.archs:
        cfg, name = load_config(arch), Path(arch).stem
        result['same_loss'][name] = same_loss(cfg, kernels, args, device)
        print(f'{name}: same weights, float32: {result["same_loss"][name]}')
        rows = time_model(name, cfg, args, device, kernels)
        add_shares(rows, report)
        result['rows'] += rows
        args.save()
        print(format_table([row for row in rows if 'failed' not in row], COLUMNS), flush=True)
        for row in rows:
            if row['way'] == COMPILED and 'kernels' in row:
                print(f'kernels of {name}, compiled')
                print(format_table(row['kernels'][:12], dict(ms='.2f', calls='.0f', kernel='')), flush=True)
    result['compare'] = compare(result['rows'])
    print('ours over the better of the released ways at the fixed batch')
    print(
        format_table(result['compare'], dict(model='', way='', batch='d') | {'images/s, x': '.2f', 'memory, x': '.2f'})
    )
    failed = [f'{row["model"]} {row["way"]}' for row in result['rows'] if 'failed' in row]
    if failed:
        raise RuntimeError(f'did not run: {", ".join(failed)}')
