"""Windowed attention of Transformer blocks on large grids of patches (ViTDet, arXiv 2203.16527)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .region_attention import attend_within_runs

# ViTDet leaves four blocks of a ViT without windows, the last of each quarter.
GLOBAL_BLOCKS = 4


def windowed_blocks(attending: Sequence[int]) -> frozenset[int]:
    """Which blocks attend within windows where there are any.

    The blocks that attend are cut into four parts as equal as can be, and the last of each part stays global. Up to
    four of them are all global.

    Args:
        attending (Sequence[int]): Places of the blocks that attend, in their order.

    Returns:
        frozenset[int]: Places among these.
    """
    ends = {-(-part * len(attending) // GLOBAL_BLOCKS) for part in range(1, GLOBAL_BLOCKS + 1)}
    return frozenset(block for count, block in enumerate(attending, start=1) if count not in ends)


class GridWindows:
    """Windows of ``size`` patches each way over a grid, from its first corner on: the attention within them.

    Windows at the far edges are smaller where the size does not divide the grid. What a token sees is what it would see
    in a whole window padded with masked tokens, but nothing is computed for padding and no mask keeps the kernels of
    attention from their fast paths: windows of one size attend together, in up to four calls.

    Args:
        grid (tuple[int, int]): Rows and columns of patches.
        size (int): Patches of a window each way.
        order (Tensor, optional): The patches in the order of the sequence, as raster indices, shape (L,). None is
            raster order.
        device (torch.device, optional): Where the tokens are.

    Attributes:
        order (Tensor): Takes a sequence to windows one after the other, those of one size together, shape (L,).
        inverse (Tensor): Takes it back, shape (L,).
    """

    def __init__(
        self, grid: tuple[int, int], size: int, order: Tensor | None = None, device: torch.device | None = None
    ) -> None:
        rows, columns = grid
        places = torch.arange(rows * columns, device=device) if order is None else order.argsort()
        places = places.view(rows, columns)
        runs = []
        # Tokens of a window and of all windows, for each size of windows.
        self.sizes: list[tuple[int, int]] = []
        for band in places.split([rows - rows % size, rows % size]):
            for part in band.split([columns - columns % size, columns % size], dim=1):
                if part.numel():
                    height, width = (min(size, n) for n in part.shape)
                    windows = part.unflatten(0, (-1, height)).unflatten(2, (-1, width)).transpose(1, 2)
                    runs.append(windows.flatten())
                    self.sizes.append((height * width, part.numel()))
        self.order = torch.cat(runs)
        self.inverse = self.order.argsort()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend among the tokens of each window, in the order of the windows.

        Args:
            q (Tensor): Queries, shape (B, L, heads, D).
            k (Tensor): Keys, shape (B, L, heads, D).
            v (Tensor): Values, shape (B, L, heads, D).

        Returns:
            Tensor: Shape (B, L, heads, D).
        """
        lengths = [length for _, length in self.sizes]
        parts = zip(self.sizes, *(x.split(lengths, dim=1) for x in (q, k, v)), strict=True)
        outs = [attend_within_runs(*qkv, region_size=size) for (size, _), *qkv in parts]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
