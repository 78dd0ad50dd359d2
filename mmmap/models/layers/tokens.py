"""Tokens of a batch: what those of images and of clouds have in common, and what each kind has of its own."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """A tokenized batch.

    Attributes:
        embeddings (Tensor): Embedded tokens, shape (B, L, C).
        coords (Tensor): Token centres, shape (L, D) or (B, L, D).
        region_ids (Tensor): Autoregressive unit of each token, 0 first, shape (L,) or (B, L), int64.
        region_size (int, optional): Tokens of a region where region r is the tokens from ``r * region_size`` on, as
            for the rows of an image; None where the regions are of another kind.
        order (Tensor, optional): The tokens in the order in which the encoder reads them, shape (L,), int64; None for
            the order of the embeddings.
    """

    embeddings: Tensor
    coords: Tensor
    region_ids: Tensor
    region_size: int | None = None
    order: Tensor | None = None

    #: Data preprocessor of models that are given none.
    data_preprocessor: ClassVar[str]

    def visible(self, mask: Tensor, num_hidden: int) -> Tensor:
        """The tokens that are not hidden, in the order of the scans, shape (B, L - ``num_hidden``).

        Args:
            mask (Tensor): True where hidden, shape (B, L).
            num_hidden (int): How many are hidden in each sample.
        """
        return self._visible_first(mask)[:, : mask.shape[1] - num_hidden]

    def _visible_first(self, mask: Tensor) -> Tensor:
        # A stable sort keeps the tokens in order, and needs no look at the values on the host.
        if self.order is None:
            return mask.to(torch.uint8).argsort(dim=1, stable=True)
        return self.order[mask[:, self.order].to(torch.uint8).argsort(dim=1, stable=True)]

    def take(self, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """Values of the tokens that the encoder reads, in its order.

        Args:
            values (Tensor): A vector of each token, shape (B, L, D) or (1, L, D).
            visible (Tensor, optional): The tokens, shape (B, L_visible). None is all of them.

        Returns:
            Tensor: Shape (B, L_visible, D), or that of ``values``.
        """
        if visible is not None:
            values = values.expand(len(visible), -1, -1)
            return values.gather(1, visible[..., None].expand(-1, -1, values.shape[-1]))
        return values if self.order is None else values[:, self.order]

    def put_back(self, values: Tensor) -> Tensor:
        """Values (B, L, D) of all tokens from the order of the scans to that of the embeddings."""
        return values if self.order is None else values[:, self.order.argsort()]

    def restore(self, visible: Tensor | None) -> Tensor:
        """For each token its place in ``[visible | hidden]``, shape (B, L), the hidden ones in the order of the scans.

        Args:
            visible (Tensor, optional): The visible tokens, shape (B, L_visible). None is all of them.
        """
        batch, length = self.embeddings.shape[:2]
        if visible is None:
            order = torch.arange(length, device=self.embeddings.device) if self.order is None else self.order
            return order.argsort().expand(batch, -1)
        mask = torch.ones(batch, length, dtype=torch.bool, device=visible.device).scatter(1, visible, False)
        order = torch.cat([visible, self._visible_first(mask)[:, visible.shape[1] :]], dim=1)
        return order.argsort(dim=1)

    @property
    def scanned_regions(self) -> Tensor:
        """Region of each token in the order of the scans, shape (L,)."""
        return self.region_ids if self.order is None else self.region_ids[self.order]

    @property
    def places(self) -> Tensor:
        """Token centres as position encodings take them, (row, column) or (x, y, z) around 0."""
        raise NotImplementedError

    def targets(self, inputs: Tensor) -> Tensor:
        """What a head compares its predictions with, from the inputs that were tokenized."""
        raise NotImplementedError

    def frame(self) -> dict[str, Any]:
        """What lays predictions of tokens out as inputs: fields of a ``Reconstruction``."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class GridTokens(Tokens):
    """Tokens of images: patches in raster order, with centres (row, column) in [0, 1].

    Attributes:
        grid (tuple[int, int]): Rows and columns.
    """

    grid: tuple[int, int]

    # With its scope, so that a model builds under any default scope.
    data_preprocessor = 'mmpretrain.SelfSupDataPreprocessor'

    @property
    def places(self) -> Tensor:
        """Token centres (row, column) in [-1, 1]."""
        return 2 * self.coords - 1

    def targets(self, inputs: Tensor) -> Tensor:
        """The images."""
        return inputs

    def frame(self) -> dict[str, Any]:
        """The grid."""
        return dict(grid=self.grid)


@dataclass(frozen=True, kw_only=True)
class CloudTokens(Tokens):
    """Tokens of clouds: groups of points, with centres (x, y, z).

    Attributes:
        groups (Tensor): The points of each token, coordinates relative to its centre first, then features, shape
            (B, L, M, 3 + F).
    """

    groups: Tensor

    data_preprocessor = 'PointDataPreprocessor'

    @property
    def places(self) -> Tensor:
        """Token centres (x, y, z)."""
        return self.coords

    def targets(self, inputs: Tensor) -> Tensor:
        """The groups."""
        return self.groups

    def frame(self) -> dict[str, Any]:
        """The centres."""
        return dict(coords=self.coords)
