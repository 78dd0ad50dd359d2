"""Positions of tokens as vectors: learned for the cells of a grid, or computed from coordinates."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from .tokens import GridTokens, Tokens


def to_pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    """Read a size given as one number or (height, width); a ValueError names it if it is neither, or not positive."""
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(n, int) and n > 0 for n in pair):
        raise ValueError(f'{name}={value!r}: must be a positive integer or a pair (height, width) of them')
    return pair


class LearnedPositionEmbedding(nn.Module):
    """A learned vector for each cell of a grid; resized (bicubic) for other grids, also on loading.

    The weight has the shape (1, rows, columns, C), so that a checkpoint tells its grid.

    Args:
        grid (int | Sequence[int]): Rows and columns of the grid.
        embed_dim (int): Width C of the vectors.
    """

    undecayed = ('weight',)

    def __init__(self, grid: int | Sequence[int], embed_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, *to_pair(grid, 'grid'), embed_dim))
        nn.init.trunc_normal_(self.weight, std=0.02)
        self.register_load_state_dict_pre_hook(self._resize_loaded)

    @staticmethod
    def _resize(weight: Tensor, grid: tuple[int, ...]) -> Tensor:
        return resize_pos_embed(weight.flatten(1, 2), tuple(weight.shape[1:3]), grid, 'bicubic', num_extra_tokens=0)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Vectors of the cells of a grid in raster order, shape (1, rows * columns, C)."""
        return self._resize(self.weight, grid)

    def of(self, tokens: GridTokens) -> Tensor:
        """Vectors of the tokens of images, shape (1, L, C)."""
        return self(tokens.grid)

    @staticmethod
    def _resize_loaded(module: 'LearnedPositionEmbedding', state_dict: dict, prefix: str, *_args) -> None:
        # Not a bound method: a deep copy of the module would keep that of the original.
        loaded = state_dict.get(f'{prefix}weight')
        own = module.weight.shape
        if loaded is None or loaded.shape == own or loaded.ndim != 4 or loaded.shape[-1] != own[-1]:
            return
        MMLogger.get_current_instance().info(
            f'{prefix}weight: resized from a grid of {tuple(loaded.shape[1:3])} to {tuple(own[1:3])}'
        )
        state_dict[f'{prefix}weight'] = module._resize(loaded, tuple(own[1:3])).view(own)


class CoordinatePositionEncoding(nn.Module):
    """A vector for each place in space, by two linear layers on its coordinates (Point-MAE, arXiv 2203.06604).

    The same weights serve places on a plane, whose missing coordinates are 0.

    Args:
        embed_dim (int): Width C of the vectors.
        activation (type[nn.Module]): Between the layers: SiLU in the released PointMAP encoder, GELU in its decoder.
            Defaults to ``nn.GELU``.
        num_dims (int): Dimensions of space. Defaults to 3.
        hidden_dim (int): Width between the layers. Defaults to 128.
    """

    def __init__(
        self, embed_dim: int, activation: type[nn.Module] = nn.GELU, num_dims: int = 3, hidden_dim: int = 128
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(num_dims, hidden_dim)
        self.act = activation()
        self.fc2 = nn.Linear(hidden_dim, embed_dim)

    def forward(self, coords: Tensor) -> Tensor:
        """Vectors (..., C) of coordinates (..., D); a ValueError if D is more than ``num_dims``."""
        missing = self.fc1.in_features - coords.shape[-1]
        if missing < 0:
            raise ValueError(
                f'coords of {coords.shape[-1]} dimensions: the encoding has num_dims={self.fc1.in_features}'
            )
        if missing:
            coords = F.pad(coords, (0, missing))
        return self.fc2(self.act(self.fc1(coords)))

    def of(self, tokens: Tokens) -> Tensor:
        """Vectors of tokens at their places, shape (L, C) or (B, L, C)."""
        return self(tokens.places.to(self.fc1.weight.dtype))
