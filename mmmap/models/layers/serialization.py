"""Where tokens lie, which sequence order they take, and which region each belongs to."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .space_filling import hilbert_codes, morton_codes, raster_codes

CURVES = {'hilbert': hilbert_codes, 'morton': morton_codes}
GRID_RULES = ('row', 'column', 'token', 'block', *CURVES)
POINT_RULES = ('raster', 'column', 'block', 'axis', *CURVES)
# Cells each way into which points are sorted, as a power of 2: fine ones along the curves, and coarse ones for rules
# that read the cells line by line, which would sort by one axis alone if hardly two points shared a line.
CURVE_BITS, LINE_BITS = 10, 3


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


class GridSerialization:
    """A rule that gives the patches of an image their sequence order and their regions.

    Args:
        rule (str | dict): 'row': every row of patches is a region (MAP's images, raster order); 'column': every column
            is; 'token': every patch is, in raster order; or ``dict(type='block', size=4)``: blocks of that many patches
            each way, or of (rows, columns), in raster order, and so are the patches within one. Blocks at the far edges
            are smaller where the size does not divide the grid. 'hilbert' and 'morton' follow these curves through the
            next larger grid of a power of 2; regions are runs of as many patches as a row has.
        name (str): What to call the rule in an error.

    Raises:
        ValueError: If the rule is not one of these.
    """

    def __init__(self, rule: str | dict, name: str = 'serialization') -> None:
        settings = dict(type=rule) if isinstance(rule, str) else dict(rule)
        self.type = settings.pop('type', None)
        size = settings.pop('size', None)
        if self.type not in GRID_RULES or settings or (size is None) == (self.type == 'block'):
            raise ValueError(
                f"{name}={rule!r}: must be 'row', 'column', 'token', 'hilbert', 'morton' or "
                "dict(type='block', size=...)"
            )
        if size is not None:
            size = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
            if len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
                raise ValueError(f'{name}={rule!r}: size must be a positive number or two, (rows, columns)')
        self.size = size

    def regions(self, grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
        """Region of each patch in raster order, 0 first, shape (rows * columns,), int64.

        Args:
            grid (tuple[int, int]): Rows and columns.
            device (torch.device, optional): Where to put the result.
        """
        rows, columns = grid
        tokens = torch.arange(rows * columns, device=device)
        if self.type == 'token':
            return tokens
        if self.type in CURVES:
            return self.order(grid, device).argsort() // columns
        row, column = tokens // columns, tokens % columns
        if self.type == 'row':
            return row
        if self.type == 'column':
            return column
        height, width = self.size
        return row // height * -(-columns // width) + column // width

    def region_size(self, grid: tuple[int, int]) -> int | None:
        """Patches of a region where the regions are equal runs in raster order or there is one, None elsewhere."""
        rows, columns = grid
        height, width = {'column': (rows, 1), 'token': (1, 1)}.get(self.type, self.size or (1, columns))
        if height >= rows and width >= columns:
            return rows * columns
        return {'row': columns, 'token': 1}.get(self.type)

    def order(self, grid: tuple[int, int], device: torch.device | None = None) -> Tensor | None:
        """The patches region by region, shape (rows * columns,), as raster indices; None where that is raster order."""
        if self.type in CURVES:
            rows, columns = grid
            axes = [torch.arange(n, device=device) for n in grid]
            cells = torch.cartesian_prod(*axes).view(-1, 2)
            return CURVES[self.type](cells, bits=max(1, (max(rows, columns) - 1).bit_length())).argsort()
        return None if self.region_size(grid) else self.regions(grid, device).argsort(stable=True)


class PointSerialization:
    """A rule that gives the points of a cloud their sequence order, by the cells of a grid over the cloud.

    The grid is the smallest cube around the cloud. Points that share a cell keep their order.

    Args:
        rule (str | dict): 'hilbert' or 'morton': along that curve; 'raster': cell by cell, the last axis fastest;
            'column': the first axis fastest; ``dict(type='block', size=2)``: blocks of that many cells each way in
            raster order, and so are the cells within one; ``dict(type='axis', axis=2)``: by one axis.
            A dict may have ``bits``: ``2**bits`` cells each way; by default 10, and 3 for 'raster', 'column' and
            'block'.
        name (str): What to call the rule in an error.

    Raises:
        ValueError: If the rule is not one of these.
    """

    def __init__(self, rule: str | dict, name: str = 'serialization') -> None:
        settings = dict(type=rule) if isinstance(rule, str) else dict(rule)
        self.type = settings.pop('type', None)
        self.size = settings.pop('size', None)
        self.axis = settings.pop('axis', None)
        coarse = self.type in ('raster', 'column', 'block')
        self.bits = settings.pop('bits', LINE_BITS if coarse else CURVE_BITS)
        needed = [(self.size, self.type == 'block'), (self.axis, self.type == 'axis')]
        if self.type not in POINT_RULES or settings or any((x is None) == wanted for x, wanted in needed):
            raise ValueError(
                f"{name}={rule!r}: must be 'hilbert', 'morton', 'raster', 'column', dict(type='block', size=...) or "
                "dict(type='axis', axis=...), and may have bits"
            )
        if not isinstance(self.bits, int) or not 1 <= self.bits <= CURVE_BITS:
            raise ValueError(f'{name}={rule!r}: bits must be from 1 to {CURVE_BITS}')
        if self.type == 'block' and not (isinstance(self.size, int) and self.size > 0):
            raise ValueError(f'{name}={rule!r}: size must be a positive number')
        if self.type == 'axis' and self.axis not in (0, 1, 2):
            raise ValueError(f'{name}={rule!r}: axis must be 0, 1 or 2')

    def codes(self, coords: Tensor) -> Tensor:
        """Place of each point's cell, shape (B, L), int64, from coordinates (B, L, D)."""
        coords = coords.detach().float() if coords.dtype != torch.float64 else coords.detach()
        low, high = coords.amin(dim=1, keepdim=True), coords.amax(dim=1, keepdim=True)
        side = (high - low).amax(dim=-1, keepdim=True)
        last = (1 << self.bits) - 1
        # A cloud of one place has a side of 0.
        scale = torch.where(side > 0, (last + 1) / side, 0)
        cells = ((coords - low) * scale).long().clamp(0, last)
        if self.type in CURVES:
            return CURVES[self.type](cells, self.bits)
        if self.type == 'axis':
            return cells[..., self.axis]
        if self.type == 'column':
            return raster_codes(cells.flip(-1), self.bits)
        if self.type == 'block':
            blocks, within = cells // self.size, cells % self.size
            dims = cells.shape[-1]
            return (raster_codes(blocks, self.bits) << self.bits * dims) + raster_codes(within, self.bits)
        return raster_codes(cells, self.bits)

    def order(self, coords: Tensor) -> Tensor:
        """The points of each cloud in sequence order, shape (B, L), int64, from coordinates (B, L, D)."""
        return self.codes(coords).argsort(dim=1, stable=True)


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
