"""One process of test_two_processes.py, started by torchrun: ``gradient_worker.py RESULT``."""

import os
import sys

import torch
import torch.distributed as dist
from mmengine.logging import MessageHub
from torch import Tensor, nn

from mmmap.models.selfsup import RandomMasking
from mmmap.registry import MODELS

GLOBAL_BATCH, LENGTH, HIDDEN = 4, 16, 9


class GivenMasking:
    """Hands out the masks that it was given."""

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def __call__(self, tokens) -> tuple[Tensor, int]:
        return self.mask, HIDDEN


def build(masking) -> nn.Module:
    """The same model in every process."""
    torch.manual_seed(3)
    return MODELS.build(
        dict(
            type='MAP',
            backbone=dict(
                type='MAPHybrid', arch=dict(embed_dim=32, layout='MMMT' * 2, num_heads=4, d_state=4), img_size=64
            ),
            neck=dict(type='RegionCausalDecoder', in_dim=32, grid=4, embed_dim=32, depth=2, num_heads=4),
            head=dict(type='PixelReconstructionHead', in_dim=32),
            masking=masking,
        )
    )


def batch() -> tuple[Tensor, Tensor]:
    """The global batch of images and its masks."""
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(GLOBAL_BATCH, 3, 64, 64, generator=generator)
    return images, torch.rand(GLOBAL_BATCH, LENGTH, generator=generator).argsort(1).argsort(1) < HIDDEN


def train(model: nn.Module, images: Tensor, steps: int = 2) -> dict[str, Tensor]:
    """Gradients of the last of some steps of SGD; a parameter that one step missed stops the next one under DDP."""
    for step in range(steps):
        model.zero_grad()
        model(images, mode='loss')['loss'].backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        if step + 1 < steps:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.05 * parameter.grad
    return gradients


def drawn_masks(steps: int = 3) -> Tensor:
    """What RandomMasking hides in some iterations of a run, shape (steps, samples, L)."""
    hub = MessageHub.get_instance('worker')
    model = build(RandomMasking((0.3, 0.7)))
    masks = []
    for step in range(steps):
        hub.update_info_dict(dict(seed=11, iter=step))
        masks.append(model.reconstruct(torch.randn(8, 3, 64, 64)).mask)
    return torch.stack(masks)


def main(result: str) -> None:
    """Average gradients over the processes, as training does, and let rank 0 save them."""
    from mmengine.model import MMDistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group('gloo')
    rank, world = dist.get_rank(), dist.get_world_size()
    images, masks = (tensor.chunk(world)[rank] for tensor in batch())
    model = MMDistributedDataParallel(
        build(GivenMasking(masks)), device_ids=None, broadcast_buffers=False, find_unused_parameters=False
    )
    gradients = {name.removeprefix('module.'): grad for name, grad in train(model, images).items()}
    drawn = [None] * world
    dist.all_gather_object(drawn, drawn_masks())
    if rank == 0:
        torch.save(dict(gradients=gradients, drawn=drawn, world=world), result)
    dist.barrier()
    # Taking a gloo group down can deadlock: its destructor holds Python's lock and joins a thread that may want it.
    os._exit(0)


if __name__ == '__main__':
    main(sys.argv[1])
