"""Places of cells along space-filling curves and in raster order, in any number of dimensions."""

import torch
from torch import Tensor


def raster_codes(cells: Tensor, bits: int) -> Tensor:
    """Places of cells in raster order, the last axis fastest.

    Args:
        cells (Tensor): Cells of a grid of ``2**bits`` each way, shape (..., D), int64.
        bits (int): Bits of an axis.

    Returns:
        Tensor: Shape (...), int64.
    """
    code = torch.zeros_like(cells[..., 0])
    for axis in cells.unbind(-1):
        code = (code << bits) + axis
    return code


def morton_codes(cells: Tensor, bits: int) -> Tensor:
    """Places of cells along the Z-order curve; arguments and result are those of :func:`raster_codes`."""
    code = torch.zeros_like(cells[..., 0])
    for bit in reversed(range(bits)):
        for axis in cells.unbind(-1):
            code = code * 2 + (axis >> bit & 1)
    return code


def hilbert_codes(cells: Tensor, bits: int) -> Tensor:
    """Places of cells along a Hilbert curve, on which successive cells share a side.

    Uses the transform of Skilling ('Programming the Hilbert curve', AIP Conf. Proc. 707, 2004): from the coarsest bit
    to the finest, each axis inverts or swaps the finer bits of the first axis. The result is a Gray code. Arguments and
    result are those of :func:`raster_codes`.
    """
    axes = list(cells.unbind(-1))
    for bit in range(bits - 1, 0, -1):
        finer = (1 << bit) - 1
        for i, axis in enumerate(axes):
            is_set = (axis >> bit & 1).bool()
            swapped = (axes[0] ^ axis) & finer
            flipped = axes[0] ^ finer
            if i:
                axes[i] = torch.where(is_set, axis, axis ^ swapped)
            axes[0] = torch.where(is_set, flipped, axes[0] ^ swapped)
    for i in range(1, len(axes)):
        axes[i] = axes[i] ^ axes[i - 1]
    correction = torch.zeros_like(axes[0])
    for bit in range(bits - 1, 0, -1):
        correction = correction ^ (axes[-1] >> bit & 1) * ((1 << bit) - 1)
    return morton_codes(torch.stack([axis ^ correction for axis in axes], dim=-1), bits)
