"""Attention within windows on large grids of patches (ViTDet, arXiv 2203.16527)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .region_attention import attend_within_runs

# As in ViTDet, four blocks attend globally, the last of each quarter.
GLOBAL_BLOCKS = 4


def windowed_blocks(attending: Sequence[int]) -> frozenset[int]:
    """The blocks that attend within windows.

    The blocks that attend are cut into four parts, as equal as possible. The last block of each part stays global. If
    there are no more than four, all of them are global.

    Args:
        attending (Sequence[int]): Numbers of the blocks that attend, in order.

    Returns:
        frozenset[int]: Some of these numbers.
    """
    ends = {-(-part * len(attending) // GLOBAL_BLOCKS) for part in range(1, GLOBAL_BLOCKS + 1)}
    return frozenset(block for count, block in enumerate(attending, start=1) if count not in ends)


class GridWindows:
    """Attention within windows of ``size`` x ``size`` patches of a grid.

    Windows at the far edges are smaller if the size does not divide the grid. The result is that of whole windows
    padded with masked tokens. But windows of one size attend together, in up to four calls, so that nothing is computed
    for padding, and no mask rules out the fast kernels of attention.

    Args:
        grid (tuple[int, int]): Rows and columns of patches.
        size (int): Rows and columns of a window.
        order (Tensor, optional): Raster indices of the patches in the order of the sequence, shape (L,). Defaults to
            None, raster order.
        device (torch.device, optional): Device of the tokens.

    Attributes:
        order (Tensor): Sorts a sequence window by window, windows of one size together, shape (L,).
        inverse (Tensor): Restores the sequence, shape (L,).
    """

    def __init__(
        self, grid: tuple[int, int], size: int, order: Tensor | None = None, device: torch.device | None = None
    ) -> None:
        rows, columns = grid
        places = torch.arange(rows * columns, device=device) if order is None else order.argsort()
        places = places.view(rows, columns)
        runs = []
        # For each size of windows: the tokens of one window, and of all of them.
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
        """Attend within each window, shape (B, L, heads, D) in and out, in the order of the windows."""
        sizes, lengths = zip(*self.sizes, strict=True)
        parts = (x.split(lengths, dim=1) for x in (q, k, v))
        outs = [attend_within_runs(*runs) for runs in zip(*parts, sizes, strict=True)]
        return outs[0] if len(outs) == 1 else torch.cat(outs, dim=1)
