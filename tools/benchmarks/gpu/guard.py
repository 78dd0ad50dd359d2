"""The guard against steps that are not finite: its cost, and that it works without a wait of the host."""

import argparse
import math
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmmap.engine.hooks.compile_hook import compile_parts
from mmmap.engine.skipped_steps import named_tensors
from mmmap.engine.step_guard import StepGuard

from .checks import optimizer_of
from .common import build_model, format_table, free_memory, load_config, one_line, random_images, seconds_of_steps

COLUMNS = dict(model='', way='', batch='d', ms='.2f', guarded='.2f', ratio='.4f', waits='', holds='')


def make_steps(
    model: nn.Module, images: Tensor, cfg: Config, device: torch.device
) -> tuple[Callable[[], None], Callable[..., None], Callable[[], dict[str, Tensor]]]:
    """A plain and a guarded step of one model, and a copy of all that the guarded one may change."""
    wrappers = [optimizer_of(model, cfg, device) for _ in range(2)]
    guard = StepGuard(model, wrappers[1])

    def run(wrapper, factor: float = 1.0) -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with wrapper.optim_context(model):
            loss = model.loss(images)['loss']
        wrapper.update_params(loss if factor == 1 else loss * factor)

    def guarded(factor: float = 1.0) -> None:
        guard.start_iteration()
        run(wrappers[1], factor)

    def state() -> dict[str, Tensor]:
        parts = dict(model=model.state_dict(), optimizer=wrappers[1].state_dict())
        return {name: value.clone() for name, value in named_tensors(parts, '')}

    return lambda: run(wrappers[0]), guarded, state


def _waits(guarded: Callable[..., None], device: torch.device) -> str:
    if device.type != 'cuda':
        return 'not known'
    torch.cuda.set_sync_debug_mode('error')
    try:
        guarded()
        guarded(math.nan)
    except RuntimeError as error:
        return one_line(error)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return 'no'


def _holds(guarded: Callable[..., None], state: Callable[[], dict[str, Tensor]]) -> str:
    before = state()
    guarded(math.nan)
    after = state()
    changed = [name for name, value in after.items() if not torch.equal(value, before[name])]
    guarded()
    spoilt = [name for name, value in state().items() if not bool(value.isfinite().all())]
    return f'{(changed + spoilt)[0]} changed' if changed or spoilt else 'yes'


def guard(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """A step with the guard beside the same step without it, eager, compiled and with CUDA graphs, in turns."""
    ways = {'eager': None}
    if args.compile:
        ways |= {'compiled': 'default'} | ({'CUDA graphs': 'reduce-overhead'} if device.type == 'cuda' else {})
    rows = []
    for arch in args.archs:
        cfg = load_config(arch)
        for way, mode in ways.items():
            model = build_model(cfg, device, args.seed)
            if mode:
                compile_parts(model, mode)
            plain, guarded, state = make_steps(model, random_images(model, args.batch_size, device), cfg, device)
            # The guard sets itself up in the first iterations; graphs are recorded in them too.
            for _ in range(4):
                plain()
                guarded()
            seconds = dict(plain=[], guarded=[])
            for _ in range(3 * args.runs):
                for name, step in (('plain', plain), ('guarded', guarded)):
                    seconds[name] += seconds_of_steps(step, device, args.steps, 1)
            pairs = zip(seconds['guarded'], seconds['plain'], strict=True)
            rows.append(
                dict(
                    model=Path(arch).stem,
                    way=way,
                    batch=args.batch_size,
                    ms=1e3 * statistics.median(seconds['plain']),
                    guarded=1e3 * statistics.median(seconds['guarded']),
                    ratio=statistics.median(one / other for one, other in pairs),
                    waits=_waits(guarded, device),
                    holds=_holds(guarded, state),
                    seconds=seconds,
                )
            )
            del model, plain, guarded, state
            free_memory()
    report['guard'] = dict(rows=rows)
    print(format_table(rows, COLUMNS))
    if any(row['holds'] != 'yes' or row['waits'] not in ('no', 'not known') for row in rows):
        raise AssertionError('the guard waits or does not hold, see the table')
