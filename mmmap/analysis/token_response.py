"""What a token of a backbone responds to: effective receptive fields, attention and scan responses."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmmap.models.backbones import MAPHybrid


def _check_token(token: tuple[int, int], grid: tuple[int, int]) -> None:
    if not all(0 <= i < n for i, n in zip(token, grid, strict=True)):
        raise ValueError(
            f'token (row {token[0]}, column {token[1]}) is not in the grid of {grid[0]} x {grid[1]} tokens'
        )


def effective_receptive_field(backbone: MAPHybrid, inputs: Tensor, token: tuple[int, int] | None = None) -> Tensor:
    """The effect of each pixel on the output of one token (Luo et al. 2016, arXiv 1701.04128).

    The gradient of the sum of the token's output channels with respect to the pixels: its absolute values, summed over
    the colour channels and averaged over the images.

    Args:
        backbone (MAPHybrid): The backbone, in evaluation mode.
        inputs (Tensor): Preprocessed images, shape (B, c, H, W).
        token (tuple[int, int], optional): Row and column of the token. Defaults to None, the centre one.

    Returns:
        Tensor: Gradients, shape (H, W).

    Raises:
        ValueError: If there is no such token.
    """
    grid = backbone.grid_of(*inputs.shape[-2:])
    row, column = token or (grid[0] // 2, grid[1] // 2)
    _check_token((row, column), grid)
    total = torch.zeros_like(inputs[0, 0])
    for image in inputs.detach().split(1):  # One at a time, to keep only one graph in memory.
        image.requires_grad_()
        with torch.enable_grad():
            feature = backbone.feature_maps(image)[-1]
            (gradient,) = torch.autograd.grad(feature[0, :, row, column].sum(), image)
        total += gradient[0].abs().sum(0)
    return total / len(inputs)


def area_of_half(field: Tensor) -> float:
    """The smallest share of the pixels that holds half of the gradient of a receptive field, in (0, 1]."""
    shares = field.flatten().double().sort(descending=True).values.cumsum(0)
    return (int((shares < shares[-1] / 2).sum()) + 1) / len(shares)


def token_responses(
    backbone: MAPHybrid, inputs: Tensor, token: tuple[int, int], blocks: Sequence[int]
) -> dict[int, Tensor]:
    """The responses of a token to each patch in some blocks: attention weights of T blocks, scan responses of M blocks.

    Responses to register tokens are left out.

    Args:
        backbone (MAPHybrid): The backbone, in evaluation mode.
        inputs (Tensor): Preprocessed images, shape (B, c, H, W).
        token (tuple[int, int]): Row and column of the token.
        blocks (Sequence[int]): Numbers of the blocks, 0 first.

    Returns:
        dict[int, Tensor]: For each block the ``response`` of its probed module, shape (B, rows, columns).

    Raises:
        ValueError: If there is no such token or block, or a block is not run, attends within windows or has no
            ``response``.
    """
    _check_token(token, backbone.grid_of(*inputs.shape[-2:]))
    layout = backbone.encoder.layout
    for block in blocks:
        if not 0 <= block < len(layout):
            raise ValueError(f'block {block} does not exist: the backbone has {len(layout)} blocks, 0 first')
        if block > max(backbone.out_indices):
            raise ValueError(f'block {block} lies behind the last of out_indices={backbone.out_indices}: it is not run')
        if backbone.window_size and block in backbone.encoder.windowed_blocks:
            raise ValueError(f'block {block} attends within windows: set window_size=0 to see all that it could')
    probed = {i: _probed(backbone.encoder.blocks[i], i) for i in blocks}
    seen: dict[int, Tensor] = {}
    hooks = [
        part.register_forward_pre_hook(lambda _module, args, i=i: seen.update({i: args[0]}))
        for i, part in probed.items()
    ]
    try:
        with torch.no_grad():
            backbone(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    places = backbone.token_places(inputs)
    place = int(places[token])
    return {i: part.response(seen[i], place).detach()[:, places] for i, part in probed.items()}


def _probed(block: Any, number: int) -> Any:
    """The module of a block that has ``response``."""
    part = getattr(block, block.probed) if block.probed else block
    if not hasattr(part, 'response'):
        raise ValueError(f'block {number}: a {type(part).__name__} has no response(x, position), see Block.probed')
    return part
