"""Where tokens lie, which sequence order they take, and which region each belongs to."""

from typing import NamedTuple

import torch
from torch import Tensor


class Tokens(NamedTuple):
    """A tokenized batch.

    Attributes:
        embeddings (Tensor): Embedded tokens with their position added, shape (B, L, C).
        coords (Tensor): Token centres, shape (L, D) or (B, L, D); in [0, 1], (row, column), for images.
        region_ids (Tensor): Autoregressive unit of each token, 0 first, shape (L,) or (B, L), int64.
        grid (tuple[int, int]): Rows and columns of an image's tokens.
        region_size (int, optional): Tokens of a region where region r is the tokens from ``r * region_size`` on, as
            for the rows of an image; None where the regions are of another kind.
    """

    embeddings: Tensor
    coords: Tensor
    region_ids: Tensor
    grid: tuple[int, int]
    region_size: int | None = None


def grid_coords(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Centres of a grid's cells in raster order.

    Args:
        grid (tuple[int, int]): Rows and columns.
        device (torch.device, optional): Where to put the result.

    Returns:
        Tensor: (row, column) of each centre in [0, 1], shape (rows * columns, 2).
    """
    axes = [(torch.arange(n, device=device) + 0.5) / n for n in grid]
    return torch.cartesian_prod(*axes).view(-1, 2)


def row_regions(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Regions of MAP's images: every row of patches is one.

    Args:
        grid (tuple[int, int]): Rows and columns.
        device (torch.device, optional): Where to put the result.

    Returns:
        Tensor: The row of each token in raster order, shape (rows * columns,), int64.
    """
    rows, columns = grid
    return torch.arange(rows, device=device).repeat_interleave(columns)


def register_order(
    num_tokens: int, num_registers: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Spread register tokens evenly through a sequence (Mamba-R, arXiv 2405.14858).

    The sequence is cut into ``num_registers + 1`` runs of ``num_tokens // (num_registers + 1)`` tokens, a register
    stands behind each of the first ``num_registers``, and the last run takes the remainder.

    Args:
        num_tokens (int): Tokens L without registers.
        num_registers (int): Registers n.
        device (torch.device, optional): Where to put the result.

    Returns:
        tuple[Tensor, Tensor, Tensor]: ``order`` (L + n,), which gathers the sequence from ``[tokens | registers]``;
        ``token_positions`` (L,) and ``register_positions`` (n,), where each of them lies in that sequence.
    """
    run = num_tokens // (num_registers + 1)
    tokens = torch.arange(num_tokens, device=device)
    registers = torch.arange(num_registers, device=device)
    # Registers before token i; with fewer tokens than runs all registers come first.
    before = (tokens // run).clamp(max=num_registers) if run else num_registers
    token_positions = tokens + before
    register_positions = registers * (run + 1) + run
    return torch.cat([token_positions, register_positions]).argsort(), token_positions, register_positions
