"""Beside the step: that of a ViT of as many parameters under MAE, and the kernels that ours spends its time in."""

import argparse
import copy
from pathlib import Path

import torch
from mmengine.config import Config

from mmmap.models.backbones.map_hybrid import resolve_arch
from mmmap.models.layers import HybridEncoder

from .common import (
    build_model,
    count_parameters,
    format_table,
    free_memory,
    load_config,
    random_images,
    seconds_of_steps,
)
from .step import COLUMNS, COMPILED, EAGER, add_shares, compile_parts, make_step, time_model


def matching_vit(arch: str | dict) -> dict:
    """The arch of a ViT (MLP ratio about 4) with as many parameters in its encoder as a hybrid has."""
    settings = resolve_arch(arch)
    settings.pop('num_registers', None)
    shape = {key: settings[key] for key in ('embed_dim', 'num_heads')}
    with torch.device('meta'):
        wanted = count_parameters(HybridEncoder(**settings))
        one, wider = (count_parameters(HybridEncoder(layout='T', mlp_ratio=ratio, **shape)) for ratio in (4.0, 5.0))
    norm = shape['embed_dim']
    blocks = max(1, round((wanted - norm) / (one - norm)))
    ratio = 4.0 + ((wanted - norm) / blocks - (one - norm)) / (wider - one)
    return dict(layout='T' * blocks, mlp_ratio=round(ratio, 3), **shape)


def vit_config(cfg: Config) -> Config:
    """The same pretraining of that ViT under MAE's rule: every token is predicted from all visible ones."""
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.arch = matching_vit(cfg.model.backbone.arch)
    cfg.model.neck.attention = 'full'
    return cfg


def vit(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """The step of a ViT of as many parameters, with the same share of hidden patches and the same decoder."""
    result = report['vit'] = dict(rows=[], archs={})
    for arch in args.archs:
        cfg, name = vit_config(load_config(arch)), Path(arch).stem
        result['archs'][name] = dict(cfg.model.backbone.arch)
        rows = time_model(f'ViT like {name}', cfg, args, device, None)
        add_shares(rows, report)
        result['rows'] += rows
        print(f'{name}: {dict(cfg.model.backbone.arch)}, {rows[0]["parameters"] / 1e6:.1f} M parameters with decoder')
        print(format_table([row for row in rows if 'failed' not in row], COLUMNS), flush=True)


def profile(args: argparse.Namespace, report: dict, device: torch.device, count: int = 14) -> None:
    """The kernels that a step spends most of its time in, eager and compiled."""
    result = report['profile'] = {}
    sort = 'cuda' if device.type == 'cuda' else 'cpu'
    for arch in args.archs:
        for compiled in (False, True) if args.compile else (False,):
            model = build_model(load_config(arch), device, args.seed)
            images = random_images(model, args.batch_size, device)
            if compiled:
                compile_parts(model)
            one = make_step(list(model.parameters()), lambda m=model, x=images: m.loss(x)['loss'], device, False)
            seconds_of_steps(one, device, 1, 3)
            activity = torch.profiler.ProfilerActivity.CUDA if sort == 'cuda' else torch.profiler.ProfilerActivity.CPU
            with torch.profiler.profile(activities=[activity]) as profiler:
                seconds_of_steps(one, device, 2, 1)
            attribute = 'self_device_time_total' if sort == 'cuda' else 'self_cpu_time_total'
            events = [
                (event.key, event.count / 2, getattr(event, attribute) / 2e3) for event in profiler.key_averages()
            ]
            events.sort(key=lambda event: -event[2])
            total = sum(event[2] for event in events)
            name = f'{Path(arch).stem}, {COMPILED if compiled else EAGER}'
            result[name] = dict(
                ms=total, kernels=[dict(kernel=key[:110], calls=calls, ms=ms) for key, calls, ms in events[:40]]
            )
            print(f'{name}, batch {args.batch_size}: {total:.1f} ms in kernels of a step')
            rows = [row | dict(kernel=row['kernel'][:70]) for row in result[name]['kernels'][:count]]
            print(format_table(rows, dict(ms='.2f', calls='.0f', kernel='')), flush=True)
            del model, one
            free_memory()
