"""The pretraining step as the released MAP code computes it, to compare with ours.

The same weights and the same loss, in our own lines, by what that code does: a mixer makes two calls of mamba-ssm, the
second on flipped copies; visible tokens are picked, and put back, by index assignment with a boolean mask (torch looks
for its non-zeros, and the host waits); attention computes all scores, in the decoder with a dense float mask of size
(L, L) added; masks are shuffled on the host, sample by sample; and the host reads the loss after every step.

mamba-ssm has no fused mixer without an output projection, which the released code has a patched copy for. So there are
two stand-ins: 'inner' is the fused ``mamba_inner_fn`` twice (as little memory, but the output projection is computed
for each direction), 'scan' is ``causal_conv1d_fn`` and ``selective_scan_fn`` (no such waste, but more memory).
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmap.ops import causal_conv1d, selective_scan

WAYS = ('inner', 'scan')


class Kernels(NamedTuple):
    """The functions of mamba-ssm and causal-conv1d that the released code uses."""

    inner: Callable[..., Tensor]
    scan: Callable[..., Tensor]
    conv: Callable[..., Tensor]
    norm: Callable[..., Tensor | tuple[Tensor, Tensor]]


def mamba_kernels() -> Kernels:
    """The functions of the installed packages.

    Raises:
        ImportError: If one is missing.
    """
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm.ops.selective_scan_interface import mamba_inner_fn, selective_scan_fn
    from mamba_ssm.ops.triton.layer_norm import rms_norm_fn

    return Kernels(mamba_inner_fn, selective_scan_fn, causal_conv1d_fn, rms_norm_fn)


def _plain_inner(xz, conv_weight, conv_bias, x_proj, dt_proj, out_proj, _out_bias, A, _B, _C, D, delta_bias) -> Tensor:
    x, z = xz.chunk(2, dim=1)
    u = causal_conv1d(x, conv_weight.squeeze(1), conv_bias, activation='silu')
    rank, states = dt_proj.shape[1], A.shape[1]
    dt, B, C = (x_proj @ u).split([rank, states, states], dim=1)
    y = selective_scan(u, dt_proj @ dt, A, B, C, D, z, delta_bias, delta_softplus=True)
    return F.linear(y.transpose(1, 2), out_proj)


def _plain_norm(x, weight, _bias, residual=None, eps=1e-5, prenorm=False, residual_in_fp32=False):
    total = x if residual is None else x + residual
    normed = F.rms_norm(total, x.shape[-1:], weight, eps)
    return (normed, total) if prenorm else normed


def plain_kernels() -> Kernels:
    """Functions of the same signatures from our operators, for machines without those packages."""
    return Kernels(_plain_inner, selective_scan, causal_conv1d, _plain_norm)


class _Direction(nn.Module):
    """The parameters of one direction of a mixer."""

    def __init__(self, mixer: nn.Module, index: int) -> None:
        super().__init__()
        for name in ('conv_weight', 'conv_bias', 'x_proj_weight', 'dt_proj_weight', 'dt_proj_bias', 'A_log', 'D'):
            self.register_parameter(name, nn.Parameter(getattr(mixer, name)[index].detach().clone()))

    def inner(self, kernels: Kernels, xz: Tensor, out_proj: Tensor) -> Tensor:
        """Convolution, scan and output projection in one call: (B, 2E, L) to (B, L, C)."""
        A = -torch.exp(self.A_log.float())
        projections = self.x_proj_weight, self.dt_proj_weight, out_proj, None
        conv_weight = self.conv_weight.unsqueeze(1)
        scan = A, None, None, self.D.float(), self.dt_proj_bias.float()
        return kernels.inner(xz, conv_weight, self.conv_bias, *projections, *scan)

    def scan(self, kernels: Kernels, xz: Tensor) -> Tensor:
        """Convolution and scan, gated: (B, 2E, L) to (B, E, L)."""
        x, z = xz.chunk(2, dim=1)
        u = kernels.conv(x, self.conv_weight, self.conv_bias, activation='silu')
        batch, _, length = u.shape
        rank, states = self.dt_proj_weight.shape[1], self.A_log.shape[1]
        rows = F.linear(u.transpose(1, 2).reshape(batch * length, -1), self.x_proj_weight)
        dt, B, C = rows.split([rank, states, states], dim=-1)
        delta = (self.dt_proj_weight @ dt.t()).unflatten(1, (batch, length)).transpose(0, 1)
        B, C = (t.unflatten(0, (batch, length)).transpose(1, 2).contiguous() for t in (B, C))
        A = -torch.exp(self.A_log.float())
        bias = self.dt_proj_bias.float()
        return kernels.scan(u, delta, A, B, C, self.D.float(), z, delta_bias=bias, delta_softplus=True)


class _Mixer(nn.Module):
    """Both directions, the second on flipped copies."""

    def __init__(self, mixer: nn.Module, kernels: Kernels, way: str) -> None:
        super().__init__()
        self.in_proj, self.out_proj = copy.deepcopy(mixer.in_proj), copy.deepcopy(mixer.out_proj)
        self.directions = nn.ModuleList(_Direction(mixer, index) for index in range(2))
        self.kernels, self.way = kernels, way

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        # (B, 2E, L) with contiguous positions, as the kernels need them
        xz = (self.in_proj.weight @ x.flatten(0, 1).t()).unflatten(1, (batch, length)).transpose(0, 1)
        pair = zip(self.directions, (xz, xz.flip(-1)), strict=True)
        if self.way == 'inner':
            first, second = (part.inner(self.kernels, flipped, self.out_proj.weight) for part, flipped in pair)
            return (first + second.flip(1)) / 2
        first, second = (part.scan(self.kernels, flipped) for part, flipped in pair)
        return self.out_proj(((first + second.flip(-1)) / 2).transpose(1, 2))


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """All scores in memory, (B, heads, L, D) in, (B, L, C) out."""
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)


def _encoder_block(block: nn.Module, x: Tensor) -> Tensor:
    qkv = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    x = x + block.attn.proj(_attention(*qkv))
    return x + block.mlp(block.norm2(x))


def _decoder_block(block: nn.Module, x: Tensor, mask: Tensor) -> Tensor:
    heads = block.attn.num_heads
    q = block.attn.q(block.norm_query(x)).unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = block.attn.kv(block.norm_context(x)).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    x = x + block.attn.proj(_attention(q, k, v, mask))
    return x + block.mlp(block.norm_mlp(x))


class ReleasedWay(nn.Module):
    """A copy of a MAP model of images, with the same weights, that computes as described above.

    Args:
        model (MAP): The model; layouts in which a T block follows an M block, as in all released sizes.
        way (str): 'inner' or 'scan'.
        kernels (Kernels): What to compute with.
    """

    def __init__(self, model: nn.Module, way: str, kernels: Kernels) -> None:
        super().__init__()
        encoder, neck = model.backbone.encoder, model.neck
        if way not in WAYS:
            raise ValueError(f'way={way!r}: must be one of {WAYS}')
        if not encoder.layout.startswith('M') or 'TT' in encoder.layout:
            raise ValueError(f'layout {encoder.layout!r}: the released code has a T block only behind an M block')
        self.norm_kernel, self.layout = kernels.norm, encoder.layout
        self.patch_embed = copy.deepcopy(model.backbone.patch_embed)
        self.pos_embed = nn.Parameter(model.backbone.pos_embed.weight.detach().flatten(1, 2).clone())
        self.blocks, self.norms, self.drop_paths = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for letter, block in zip(self.layout, encoder.blocks, strict=True):
            self.blocks.append(_Mixer(block.mixer, kernels, way) if letter == 'M' else copy.deepcopy(block))
            if letter == 'M':
                self.norms.append(copy.deepcopy(block.norm))
                self.drop_paths.append(copy.deepcopy(block.drop_path))
        self.norms.append(copy.deepcopy(encoder.norm))
        self.drop_paths.append(copy.deepcopy(encoder.drop_path))
        self.decoder_embed, self.decoder_blocks, self.decoder_norm, self.head = (
            copy.deepcopy(part) for part in (neck.embed, neck.blocks, neck.norm, model.head)
        )
        self.mask_token = nn.Parameter(neck.mask_token.detach().clone())
        self.decoder_pos_embed = nn.Parameter(neck.pos_embed.weight.detach().flatten(1, 2).clone())
        rows, columns = neck.pos_embed.weight.shape[1:3]
        region = torch.arange(rows * columns) // columns
        hidden = torch.zeros(len(region), len(region)).masked_fill(region[None] > region[:, None], float('-inf'))
        self.register_buffer('decoder_mask', hidden.to(self.mask_token.device))

    def draw_mask(self, batch: int, ratio: float) -> Tensor:
        """A mask (B, L), True where hidden, shuffled on the host."""
        length = self.pos_embed.shape[1]
        mask = np.zeros((batch, length), dtype=bool)
        for row in mask:
            order = np.arange(length)
            np.random.shuffle(order)
            row[order[: int(np.ceil(length * ratio))]] = True
        return torch.from_numpy(mask).to(self.pos_embed.device)

    def _add_and_norm(self, index: int, branch: Tensor, stream: Tensor | None, prenorm: bool):
        norm, branch = self.norms[index], branch if stream is None else self.drop_paths[index](branch)
        return self.norm_kernel(
            branch, norm.weight, None, residual=stream, eps=norm.eps, prenorm=prenorm, residual_in_fp32=True
        )

    def encode(self, x: Tensor) -> Tensor:
        """Encode visible tokens, shape (B, L_visible, C) in and out."""
        branch, stream, index = x, None, 0
        for letter, block in zip(self.layout, self.blocks, strict=True):
            if letter == 'M':
                normed, stream = self._add_and_norm(index, branch, stream, prenorm=True)
                branch, index = block(normed), index + 1
            else:
                branch = _encoder_block(block, branch) + branch
        return self._add_and_norm(index, branch, stream, prenorm=False)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """The pretraining loss of images (B, c, H, W) with a mask (B, L), True where hidden."""
        x = self.patch_embed(images).flatten(2).transpose(1, 2) + self.pos_embed
        batch, length, dim = x.shape
        latent = self.encode(x[~mask].reshape(batch, -1, dim))
        visible = self.decoder_embed(latent)
        x = self.mask_token.to(visible.dtype).repeat(batch, length, 1)
        x[~mask] = visible.flatten(0, 1)
        x = x + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = _decoder_block(block, x, self.decoder_mask)
        pred = self.head(self.decoder_norm(x))
        target = self.head.target(images)
        error = (pred.to(target.dtype) - target).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum()
