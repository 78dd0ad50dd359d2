"""The tokens of a batch: a base, and a class each for images and clouds of points."""

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
        region_size (int, optional): Tokens of a region if region r is the tokens from ``r * region_size`` on, as for
            the rows of an image; else None.
        order (Tensor, optional): The order in which the encoder reads the tokens, as indices, shape (L,), int64; None
            is the order of the embeddings.
    """

    embeddings: Tensor
    coords: Tensor
    region_ids: Tensor
    region_size: int | None = None
    order: Tensor | None = None

    #: The default data preprocessor of models.
    data_preprocessor: ClassVar[str]

    def visible_indices(self, mask: Tensor, num_hidden: int) -> Tensor:
        """Indices of the visible tokens in the order of the scans, shape (B, L - ``num_hidden``).

        ``mask`` (B, L) is True where tokens are hidden, ``num_hidden`` of each sample.
        """
        return self._visible_first(mask)[:, : mask.shape[1] - num_hidden]

    def _visible_first(self, mask: Tensor) -> Tensor:
        # A stable sort keeps the order, and the host need not wait for the values.
        if self.order is None:
            return mask.to(torch.uint8).argsort(dim=1, stable=True)
        return self.order[mask[:, self.order].to(torch.uint8).argsort(dim=1, stable=True)]

    def take(self, values: Tensor, visible: Tensor | None = None) -> Tensor:
        """Values of the visible tokens, in the order of the scans.

        Args:
            values (Tensor): A vector of each token, shape (B, L, D) or (1, L, D).
            visible (Tensor, optional): Indices of the tokens, shape (B, L_visible). Defaults to None, all of them.

        Returns:
            Tensor: Shape (B, L_visible, D), or that of ``values``.
        """
        if visible is not None:
            values = values.expand(len(visible), -1, -1)
            return values.gather(1, visible[..., None].expand(-1, -1, values.shape[-1]))
        return values if self.order is None else values[:, self.order]

    def put_back(self, values: Tensor) -> Tensor:
        """Bring values (B, L, D) of all tokens from the order of the scans back to that of the embeddings."""
        return values if self.order is None else values[:, self.order.argsort()]

    def restore_indices(self, visible: Tensor | None) -> Tensor:
        """The place of each token in ``[visible | hidden]``, shape (B, L); the hidden are in the order of the scans."""
        batch, length = self.embeddings.shape[:2]
        if visible is None:
            order = torch.arange(length, device=self.embeddings.device) if self.order is None else self.order
            return order.argsort().expand(batch, -1)
        mask = torch.ones(batch, length, dtype=torch.bool, device=visible.device).scatter(1, visible, False)
        order = torch.cat([visible, self._visible_first(mask)[:, visible.shape[1] :]], dim=1)
        return order.argsort(dim=1)

    @property
    def scanned_regions(self) -> Tensor:
        """The region of each token in the order of the scans, shape (L,)."""
        return self.region_ids if self.order is None else self.region_ids[self.order]

    @property
    def places(self) -> Tensor:
        """Token centres for position encodings: (row, column) or (x, y, z) around 0."""
        raise NotImplementedError

    def targets(self, inputs: Tensor) -> Tensor:
        """The targets of a head, from the inputs that were tokenized."""
        raise NotImplementedError

    def frame(self) -> dict[str, Any]:
        """The fields of a ``Reconstruction`` that place its predictions in the inputs."""
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
        groups (Tensor): The points of each token, shape (B, L, M, 3 + F): coordinates relative to its centre, then
            features.
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
