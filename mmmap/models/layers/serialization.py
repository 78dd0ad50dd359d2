"""Places of tokens, their order in the sequence, and their regions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .space_filling import hilbert_codes, morton_codes, raster_codes

CURVES = {'hilbert': hilbert_codes, 'morton': morton_codes}
GRID_RULES = ('row', 'column', 'token', 'block', *CURVES)
POINT_RULES = ('raster', 'column', 'block', 'axis', *CURVES)
# Points are sorted into 2**bits cells along each axis: fine cells for the curves, coarse cells for the rules that read
# line by line. With fine cells hardly two points would share a line, and one axis alone would sort them.
CURVE_BITS, LINE_BITS = 10, 3


def grid_coords(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Centres (row, column) in [0, 1] of the cells of a grid in raster order, shape (rows * columns, 2)."""
    axes = [(torch.arange(n, device=device) + 0.5) / n for n in grid]
    return torch.cartesian_prod(*axes).view(-1, 2)


class GridSerialization:
    """A rule for the order of the patches of an image in the sequence, and for their regions.

    Args:
        rule (str | dict): The regions are: 'row', the rows of patches (MAP's images, raster order); 'column', the
            columns; 'token', single patches in raster order; ``dict(type='block', size=4)``, blocks of 4 x 4 patches,
            or of (rows, columns), in raster order, as are the patches within a block. Blocks at the far edges are
            smaller if the size does not divide the grid. 'hilbert' and 'morton' follow these curves through the next
            larger grid whose side is a power of 2; their regions are runs of as many patches as a row has.
        name (str): Name of the rule in errors. Defaults to 'serialization'.

    Raises:
        ValueError: If the rule is not one of these.
    """

    size: tuple[int, int] | None

    def __init__(self, rule: str | dict, name: str = 'serialization') -> None:
        settings: dict[str, Any] = dict(type=rule) if isinstance(rule, str) else dict(rule)
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
        """The region of each patch in raster order, 0 first, shape (rows * columns,), int64."""
        rows, columns = grid
        if self.type in CURVES:
            return self._order_along_curve(grid, device).argsort() // columns
        tokens = torch.arange(rows * columns, device=device)
        height, width = self._region_shape(grid)
        return tokens // columns // height * -(-columns // width) + tokens % columns // width

    def region_size(self, grid: tuple[int, int]) -> int | None:
        """Patches of a region if the regions are equal runs in raster order or there is only one, else None."""
        rows, columns = grid
        height, width = self._region_shape(grid)
        if height >= rows and width >= columns:
            return rows * columns
        return {'row': columns, 'token': 1}.get(self.type)

    def order(self, grid: tuple[int, int], device: torch.device | None = None) -> Tensor | None:
        """The patches region by region, shape (rows * columns,), as raster indices; None for raster order."""
        if self.type in CURVES:
            return self._order_along_curve(grid, device)
        return None if self.region_size(grid) else self.regions(grid, device).argsort(stable=True)

    def _region_shape(self, grid: tuple[int, int]) -> tuple[int, int]:
        rows, columns = grid
        return self.size or {'column': (rows, 1), 'token': (1, 1)}.get(self.type, (1, columns))

    def _order_along_curve(self, grid: tuple[int, int], device: torch.device | None) -> Tensor:
        cells = torch.cartesian_prod(*(torch.arange(n, device=device) for n in grid)).view(-1, 2)
        return CURVES[self.type](cells, bits=max(1, (max(grid) - 1).bit_length())).argsort()


class PointSerialization:
    """A rule for the order of the points of a cloud in the sequence, by the cells of a grid over the cloud.

    The grid is the smallest cube around the cloud. Points of one cell keep their order.

    Args:
        rule (str | dict): 'hilbert' or 'morton', along that curve; 'raster', cell by cell, the last axis fastest;
            'column', the first axis fastest; ``dict(type='block', size=2)``, blocks of 2 x 2 x 2 cells in raster order,
            as are the cells within a block; ``dict(type='axis', axis=2)``, along one axis. A dict may have ``bits``,
            for ``2**bits`` cells along each axis: by default 10, and 3 for 'raster', 'column' and 'block'.
        name (str): Name of the rule in errors. Defaults to 'serialization'.

    Raises:
        ValueError: If the rule is not one of these.
    """

    def __init__(self, rule: str | dict, name: str = 'serialization') -> None:
        settings: dict[str, Any] = dict(type=rule) if isinstance(rule, str) else dict(rule)
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
        """The place of the cell of each point, shape (B, L), int64, from coordinates (B, L, D)."""
        coords = coords.detach().float() if coords.dtype != torch.float64 else coords.detach()
        low, high = coords.amin(dim=1, keepdim=True), coords.amax(dim=1, keepdim=True)
        side = (high - low).amax(dim=-1, keepdim=True)
        last = (1 << self.bits) - 1
        # The side is 0 if all points are in one place.
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
        """The points of each cloud in the order of the sequence, shape (B, L), int64, from coordinates (B, L, D)."""
        return self.codes(coords).argsort(dim=1, stable=True)


def register_order(
    num_tokens: int, num_registers: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Spread register tokens evenly through a sequence (Mamba-R, arXiv 2405.14858).

    The sequence is cut into ``num_registers + 1`` runs of ``num_tokens // (num_registers + 1)`` tokens, with a register
    behind each run but the last, which takes the remainder.

    Args:
        num_tokens (int): Tokens L without registers.
        num_registers (int): Registers n.
        device (torch.device, optional): Where to put the result.

    Returns:
        tuple[Tensor, Tensor, Tensor]: ``order`` (L + n,), which gathers the sequence from ``[tokens | registers]``;
        ``token_positions`` (L,) and ``register_positions`` (n,), their places in that sequence.
    """
    run = num_tokens // (num_registers + 1)
    tokens = torch.arange(num_tokens, device=device)
    registers = torch.arange(num_registers, device=device)
    # The registers before each token. With fewer tokens than runs all registers come first.
    before = (tokens // run).clamp(max=num_registers) if run else num_registers
    token_positions = tokens + before
    register_positions = registers * (run + 1) + run
    return torch.cat([token_positions, register_positions]).argsort(), token_positions, register_positions
