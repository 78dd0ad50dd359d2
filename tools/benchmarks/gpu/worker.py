"""One process of benchmark_gpus.py, started by torchrun: ``worker.py SPEC RESULT``."""

import gc
import json
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import Tensor, nn

from gpu import NAMES, ROOT
from gpu.common import load_config, peak_bytes, random_images, seconds_of_steps
from mmmap.engine.error_report import one_line_errors
from mmmap.engine.hooks.compile_hook import compile_parts
from mmmap.engine.strategies import wrap_blocks
from mmmap.registry import MODELS


class GivenMasking:
    """A masking that returns a given mask."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, tokens: Tensor) -> tuple[Tensor, int]:
        """The mask, and the number of hidden tokens of a sample."""
        return self.mask, int(self.mask[0].sum())


def model_config(name: str) -> Config:
    """The config of a size or a file. Configs of large sizes have fewer images per GPU in their names."""
    if name in (*NAMES, 'large', 'huge') and name not in NAMES:
        name = str(ROOT / f'configs/map/map_hybrid-{name}-p16_16xb128-amp-coslr-1600e_in1k.py')
    return load_config(name)


def wrap(model: nn.Module, spec: dict, device: torch.device) -> nn.Module:
    """What mmengine's runner makes of it with the configs' settings, compiled if the spec asks for it."""
    from mmengine.model import MMDistributedDataParallel, MMFullyShardedDataParallel

    if spec['wrapper'] == 'fsdp':
        model = MMFullyShardedDataParallel(model, auto_wrap_policy=wrap_blocks, device_id=device)
    else:
        ids = [device.index] if device.type == 'cuda' else None
        model = MMDistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, find_unused_parameters=False)
    if spec['compile']:
        compile_parts(model, spec['compile'])
    return model


def make_step(model: nn.Module, images: Tensor, device: torch.device, half: bool) -> Callable[[], Tensor]:
    """Loss, gradients, AdamW; ``half`` computes the loss in bfloat16 (autocast)."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def step() -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = model(images, mode='loss')['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def shared_losses(spec: dict, device: torch.device) -> list[float]:
    """Losses of some steps in float32 on one batch, of which each process has its part."""
    cfg = model_config(spec['model'])
    generator = torch.Generator().manual_seed(spec['seed'])
    torch.manual_seed(spec['seed'])
    model = MODELS.build(cfg.model).eval()  # Stochastic depth would draw differently in each process.
    size, patch = model.backbone.img_size, model.backbone.patch_size
    tokens = (size[0] // patch) * (size[1] // patch)
    images = torch.randn(spec['check_batch'], model.backbone.in_channels, *size, generator=generator)
    order = torch.rand(spec['check_batch'], tokens, generator=generator).argsort(1).argsort(1)
    rank, world = dist.get_rank(), dist.get_world_size()
    images, mask = (part.chunk(world)[rank].to(device) for part in (images, order < tokens // 2))
    model.masking = GivenMasking(mask)
    step = make_step(wrap(model.to(device), spec, device), images, device, half=False)
    losses = []
    for _ in range(spec['check_steps']):
        loss = step()
        dist.all_reduce(loss)
        losses.append(loss.item() / world)
    return losses


def speed(spec: dict, device: torch.device) -> dict:
    """Images a second of all processes together, and the peak of memory of this one."""
    torch.manual_seed(spec['seed'])
    model = MODELS.build(model_config(spec['model']).model).train().to(device)
    images = random_images(model, spec['batch'], device)
    with peak_bytes(device) as peak:
        step = make_step(wrap(model, spec, device), images, device, half=True)
        seconds_of_steps(step, device, 1, 3)
        dist.barrier()
        seconds = seconds_of_steps(step, device, spec['steps'], spec['runs'])
    found = dict(seconds=seconds, ms=1e3 * statistics.median(seconds))
    found['images/s'] = spec['batch'] * dist.get_world_size() / statistics.median(seconds)
    return found | ({'GiB a GPU': peak[0] / 2**30} if peak else {})


def main() -> None:
    """Check and time the model of the specification."""
    spec, result = json.loads(sys.argv[1]), Path(sys.argv[2])
    MMLogger.get_current_instance().setLevel('WARNING')
    cuda = spec['device'] == 'cuda'
    device = torch.device('cuda', int(os.environ['LOCAL_RANK'])) if cuda else torch.device('cpu')
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group('nccl' if cuda else 'gloo', device_id=device if cuda else None)
    losses = shared_losses(spec, device)
    torch.compiler.reset()  # Otherwise the new batch size would be compiled as a variable.
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    found = speed(spec, device) | dict(losses=losses)
    if dist.get_rank() == 0:
        result.write_text(json.dumps(found))
    dist.barrier()
    sys.stdout.flush()
    # Destroying a group can deadlock: gloo's destructor holds Python's lock and joins a thread that may need it.
    os._exit(0)


if __name__ == '__main__':
    with one_line_errors():
        main()
