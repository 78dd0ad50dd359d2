"""What a token of a backbone responds to: effective receptive fields, attention and scan responses."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn

from mmmap.models.layers import MambaMixer, mamba_mixer
from mmmap.models.layers.transformer_block import SelfAttention


@contextmanager
def _feature_maps(backbone: nn.Module) -> Iterator[None]:
    """Let a backbone return maps, whatever its registers and the order in which its encoder reads the tokens."""
    out_type, backbone.out_type = backbone.out_type, 'featmap'
    try:
        yield
    finally:
        backbone.out_type = out_type


def _check_token(token: tuple[int, int], grid: tuple[int, int]) -> None:
    if not all(0 <= i < n for i, n in zip(token, grid, strict=True)):
        raise ValueError(
            f'token (row {token[0]}, column {token[1]}) is not in the grid of {grid[0]} x {grid[1]} tokens'
        )


def effective_receptive_field(backbone: nn.Module, inputs: Tensor, token: tuple[int, int] | None = None) -> Tensor:
    """How strongly each pixel moves the output of one token (Luo et al. 2016, arXiv 1701.04128).

    The gradient of the sum of the token's output channels with respect to the pixels. Its absolute values are summed
    over the colour channels and averaged over the images, so that signs do not cancel.

    Args:
        backbone (nn.Module): A ``MAPHybrid`` in evaluation mode.
        inputs (Tensor): Preprocessed images, shape (B, c, H, W).
        token (tuple[int, int], optional): Row and column of the token. None is the centre one.

    Returns:
        Tensor: Gradients, shape (H, W).

    Raises:
        ValueError: If there is no such token.
    """
    grid = backbone.grid_of(*inputs.shape[-2:])
    row, column = token or (grid[0] // 2, grid[1] // 2)
    _check_token((row, column), grid)
    total = torch.zeros_like(inputs[0, 0])
    for image in inputs.detach().split(1):  # One at a time: memory of a single graph, however many images.
        image.requires_grad_()
        with _feature_maps(backbone), torch.enable_grad():
            feature = backbone(image)[-1]
            (gradient,) = torch.autograd.grad(feature[0, :, row, column].sum(), image)
        total += gradient[0].abs().sum(0)
    return total / len(inputs)


def area_of_half(field: Tensor) -> float:
    """The smallest share of the pixels that holds half of a receptive field's gradient, in (0, 1]."""
    shares = field.flatten().double().sort(descending=True).values.cumsum(0)
    return (int((shares < shares[-1] / 2).sum()) + 1) / len(shares)


def attention_weights(attention: SelfAttention, x: Tensor, position: int) -> Tensor:
    """How much one token attends to each token, the mean over the heads.

    Args:
        attention (SelfAttention): Attention of a Transformer block.
        x (Tensor): What it is called with, shape (B, L, C).
        position (int): Place of the token in the sequence.

    Returns:
        Tensor: Weights that sum to 1, shape (B, L).
    """
    q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.num_heads, -1)).unbind(2)
    scores = torch.einsum('bhd,blhd->bhl', q[:, position], k) * q.shape[-1] ** -0.5
    return scores.softmax(-1).mean(1)


def scan_response(mixer: MambaMixer, x: Tensor, position: int) -> Tensor:
    """How much the scans of a mixer carry from each token to one token.

    Given its step sizes and its B and C, a selective scan is linear in its input: in each channel
    ``y[i] = sum over j of a[i, j] u[j] + D u[i]``. The matrix ``a`` is what Ali, Zimerman and Wolf call the hidden
    attention of Mamba (arXiv 2403.01590): ``a[i, j] = C[i] exp(A (dt[j+1] + ... + dt[i])) dt[j] B[j]`` for j up to i,
    and likewise from the other end for the reverse scan. This is the row of the token: the absolute values of ``a``,
    averaged over the channels, of both directions, which a mixer averages. The skip D, the gate and the convolution
    before the scan are left out.

    Args:
        mixer (MambaMixer): Mixer of a Mamba block.
        x (Tensor): What it is called with, shape (B, L, C).
        position (int): Place i of the token in the sequence.

    Returns:
        Tensor: Responses, not normalised, shape (B, L).
    """
    scan: Callable[..., Tensor] = mamba_mixer.bidirectional_scan
    calls = []

    def record(u: Tensor, *args, **kwargs) -> Tensor:
        calls.append((u, args, kwargs | dict(D=None, z=None)))
        return scan(u, *args, **kwargs)

    # What the mixer really gives its scan, rather than a copy here of how it gets it.
    with torch.no_grad(), mock.patch.object(mamba_mixer, 'bidirectional_scan', record):
        mixer(x)
    ((u, args, kwargs),) = calls
    u = u.detach().requires_grad_()
    with torch.enable_grad():
        y = scan(u, *args, **kwargs)
        # Neither samples nor channels mix, so that one backward pass gives the row in all of them.
        (row,) = torch.autograd.grad(y[..., position].sum(), u)
    return row.abs().sum(1).mean(1)


def token_responses(
    backbone: nn.Module, inputs: Tensor, token: tuple[int, int], blocks: Sequence[int]
) -> dict[int, Tensor]:
    """What a token looks at in some blocks: attention weights of T blocks, scan responses of M blocks.

    The share of register tokens, if there are any, is not in the maps.

    Args:
        backbone (nn.Module): A ``MAPHybrid`` in evaluation mode.
        inputs (Tensor): Preprocessed images, shape (B, c, H, W).
        token (tuple[int, int]): Row and column of the token.
        blocks (Sequence[int]): Blocks, 0 first.

    Returns:
        dict[int, Tensor]: For each block its :func:`attention_weights` or :func:`scan_response`, shape
        (B, rows, columns).

    Raises:
        ValueError: If there is no such token or block, or the block is not run or attends within windows.
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
    parts = {i: getattr(backbone.encoder.blocks[i], 'mixer' if layout[i] == 'M' else 'attn') for i in blocks}
    seen = {}

    def keep(i: int) -> Callable:
        return lambda _module, args: seen.update({i: args[0]})

    def number(_module: nn.Module, _args: tuple, outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # In place of its result each token gets its place in the sequence; the backbone's map then tells where it went.
        return tuple(torch.arange(out.shape[1]).to(out)[:, None].expand_as(out) for out in outs)

    hooks = [part.register_forward_pre_hook(keep(i)) for i, part in parts.items()]
    hooks.append(backbone.encoder.register_forward_hook(number))
    try:
        with torch.no_grad(), _feature_maps(backbone):
            positions = backbone(inputs)[-1][0, 0].round().long()
    finally:
        for hook in hooks:
            hook.remove()
    place = int(positions[token])
    responses = {}
    for i, part in parts.items():
        respond = scan_response if layout[i] == 'M' else attention_weights
        responses[i] = respond(part, seen[i], place).detach()[:, positions]
    return responses
