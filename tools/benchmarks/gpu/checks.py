"""Checks of the step: no wait of the host, no graph break, no NaN over many steps."""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, build_optim_wrapper
from PIL import Image
from torch import Tensor, nn

from mmmap.engine.hooks.compile_hook import compile_parts

from .common import build_model, format_table, free_memory, load_config, one_line, random_images, synchronize

IMAGE_SUFFIXES = ('.png', '.jpg', '.jpeg', '.JPEG')
MOST_IMAGES = 4096  # Images of a folder that are kept in memory


def _count_iterations(iteration: int, seed: int) -> None:
    """Set the step that masks are drawn for, as mmengine's Runner does."""
    MessageHub.get_current_instance().update_info_dict(dict(iter=iteration, seed=seed))


def _forget_run() -> None:
    """Draw masks as outside of a run again."""
    MessageHub.get_current_instance().runtime_info.pop('iter', None)


def optimizer_of(model: nn.Module, cfg: Config, device: torch.device) -> OptimWrapper:
    """The optimizer wrapper of the config; in float32 on a CPU."""
    settings = dict(cfg.optim_wrapper)
    if device.type != 'cuda':  # AmpOptimWrapper refuses to run there.
        settings = {key: value for key, value in settings.items() if key not in ('dtype', 'loss_scale')}
        settings['type'] = 'OptimWrapper'
    return build_optim_wrapper(model, settings)


def sync(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """A step under ``set_sync_debug_mode('error')``, and encoder and decoder traced as one graph each."""
    rows = []
    for arch in args.archs:
        cfg = load_config(arch)
        model = build_model(cfg, device, args.seed)
        images = random_images(model, 4, device)
        optimizer = optimizer_of(model, cfg, device)

        def step(model=model, images=images, optimizer=optimizer) -> None:
            with optimizer.optim_context(model):
                loss = model.loss(images)['loss']
            optimizer.update_params(loss)

        for name, check in (('host waits', _steps_without_wait), ('graph breaks', _one_graph)):
            try:
                check(step, model, device, args.seed)
                found = 'none'
            except Exception as error:
                found = one_line(error)
            _forget_run()
            rows.append(dict(model=Path(arch).stem, check=name, found=found))
        free_memory()
    report['sync'] = dict(rows=rows)
    print(format_table(rows, dict(model='', check='', found='')))
    if any(row['found'] != 'none' for row in rows):
        raise AssertionError('the step waits or its graphs break, see the table')


def _steps_without_wait(step, _model: nn.Module, device: torch.device, seed: int) -> None:
    for iteration in range(2):  # The first steps compile kernels and create the optimizer state.
        _count_iterations(iteration, seed)
        step()
    if device.type != 'cuda':
        return
    torch.cuda.set_sync_debug_mode('error')
    try:
        _count_iterations(2, seed)
        step()
    finally:
        torch.cuda.set_sync_debug_mode('default')


def _one_graph(step, model: nn.Module, _device: torch.device, _seed: int) -> None:
    # Tracing alone shows a break; 'aot_eager' traces forward and backward and generates no code.
    model.backbone.encoder.compile(fullgraph=True, backend='aot_eager')
    model.neck.compile(fullgraph=True, backend='aot_eager')
    step()


def generated_images(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Random images with structure at several scales, about normalised, (count, 3, H, W)."""
    total = torch.zeros(count, 3, *size, device=device)
    for cells in (2, 7, 28):
        noise = torch.randn(count, 3, cells, cells, device=device)
        total += F.interpolate(noise, size=size, mode='bicubic', align_corners=False)
    total += 0.1 * torch.randn_like(total)
    return total / total.std()


def folder_images(folder: str, size: tuple[int, int], device: torch.device) -> Tensor:
    """Images of a folder (at most ``MOST_IMAGES``), resized and normalised.

    Raises:
        FileNotFoundError: If it holds none.
    """
    files = sorted(path for path in Path(folder).rglob('*') if path.suffix in IMAGE_SUFFIXES)[:MOST_IMAGES]
    if not files:
        raise FileNotFoundError(f'{folder}: holds no {", ".join(IMAGE_SUFFIXES)}')
    stacked = np.stack([np.asarray(Image.open(path).convert('RGB').resize(size[::-1])) for path in files])
    images = torch.from_numpy(stacked).to(device).permute(0, 3, 1, 2).float()
    return (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)


def stability(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """Many steps in bfloat16 at the learning rate of the config; no loss and no weight may be NaN or infinite.

    Compiled, and on a GPU replayed as CUDA graphs, unless that is switched off.

    The learning rate is the one that the config has for its batch of 2,048, not scaled down to the batch of this run,
    after a warm-up over the first tenth of the steps: harder than the recipe.
    """
    arch = args.archs[0]
    cfg = load_config(arch)
    model = build_model(cfg, device, args.seed)
    size = model.backbone.img_size
    images = folder_images(args.images, size, device) if args.images else generated_images(512, size, device)
    optimizer = optimizer_of(model, cfg, device)
    rate = cfg.optim_wrapper.optimizer.lr
    if args.compile:
        compile_parts(model, 'reduce-overhead' if device.type == 'cuda' else 'default')
    losses = torch.zeros(args.stability_steps, device=device)
    batch = min(args.stability_batch, len(images))
    synchronize(device)
    start = time.perf_counter()
    for iteration in range(args.stability_steps):
        _count_iterations(iteration, args.seed)
        factor = min(1.0, (iteration + 1) / max(1, args.stability_steps // 10))
        for group in optimizer.param_groups:
            group['lr'] = rate * factor
        chosen = torch.randint(len(images), (batch,), device=device)
        torch.compiler.cudagraph_mark_step_begin()
        with optimizer.optim_context(model):
            loss = model.loss(images[chosen])['loss']
        optimizer.update_params(loss)
        losses[iteration] = loss.detach()
    synchronize(device)
    seconds = time.perf_counter() - start
    _forget_run()
    weights = all(torch.isfinite(p).all().item() for p in model.parameters())
    steps, values = args.stability_steps, losses.tolist()
    finite = int(torch.isfinite(losses).sum())
    report['stability'] = dict(
        arch=Path(arch).stem, steps=steps, batch=batch, lr=rate, images=args.images or 'generated', seconds=seconds,
        finite_losses=finite, finite_weights=weights, losses=values[:: max(1, steps // 200)],
        first=values[0], last=sum(values[-10:]) / len(values[-10:]), largest=max(values),
    )  # fmt: skip
    found = report['stability']
    print(f'{found["arch"]}, batch {batch}, lr {rate:g}: {finite} of {steps} losses finite, weights finite: {weights};')
    print(f'loss {found["first"]:.4f} to {found["last"]:.4f}, largest {found["largest"]:.4f}; {seconds:.0f} s')
    if finite < steps or not weights:
        raise AssertionError(f'{steps - finite} of {steps} losses are not finite, weights finite: {weights}')
