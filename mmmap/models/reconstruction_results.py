"""The result of a pretraining method on a batch: its predictions, and all that their loss needs."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .protocols import CloudHead, Head, ImageHead


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """The result of a pretraining method on a batch.

    Attributes:
        latent (Tensor): Encoded tokens in the order of the scans, shape (B, L_encoded, C).
        mask (Tensor): True where the input of a token was hidden from its prediction, shape (B, L).
        predicted (Tensor): The head's predictions for all tokens, at all its scales.
        targets (Tensor): What the head compares them with.
        head (Head): The head.
        nothing_hidden (bool): Whether the method hides no token, and predicts all. Defaults to False.
    """

    latent: Tensor
    mask: Tensor
    predicted: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    head: Head = field(repr=False)
    nothing_hidden: bool = False

    @property
    def pred(self) -> Tensor:
        """Predictions at full resolution for all tokens, (B, L, P), in the order of the tokens."""
        return self.head.full_resolution(self.predicted)

    @property
    def counted(self) -> Tensor:
        """The tokens that count in the loss, shape (B, L): the masked ones, or all where the method hides none."""
        return torch.ones_like(self.mask) if self.nothing_hidden else self.mask

    def losses(self) -> dict[str, Tensor]:
        """:meth:`loss` and, where the head has several scales, the mean error at each of them, ``scale_FACTOR``."""
        return self.head.losses(self.predicted, self.targets, self.counted)

    def loss(self) -> Tensor:
        """The pretraining loss, a scalar, over the tokens that count."""
        return self.losses()['loss']

    def images(self) -> Tensor:
        """The predictions as images in the scale of the inputs, shape (B, c, H, W).

        Raises:
            TypeError: If the inputs were no images.
        """
        raise TypeError(f'images(): a {type(self).__name__} has none, as the inputs were no images')

    def clouds(self) -> tuple[list[Tensor], list[Tensor]]:
        """The visible points and the predicted points, in the frame of the inputs.

        Returns:
            tuple[list[Tensor], list[Tensor]]: For each cloud the points of the visible groups, shape (V, 3), and the
            predicted points of the hidden ones, (M, 3); of all groups where the method hides none.

        Raises:
            TypeError: If the inputs were no clouds.
        """
        raise TypeError(f'clouds(): a {type(self).__name__} has none, as the inputs were no clouds of points')


@dataclass(frozen=True, kw_only=True)
class ImageReconstruction(Reconstruction):
    """The result on images.

    Attributes:
        grid (tuple[int, int]): Rows and columns of the tokens.
    """

    head: ImageHead = field(repr=False)
    grid: tuple[int, int]

    def images(self) -> Tensor:
        """See :meth:`Reconstruction.images`."""
        return self.head.to_images(self.pred.detach().float(), self.targets, self.grid)


@dataclass(frozen=True, kw_only=True)
class CloudReconstruction(Reconstruction):
    """The result on clouds of points.

    Attributes:
        coords (Tensor): Centres of the tokens, shape (B, L, 3).
    """

    head: CloudHead = field(repr=False)
    coords: Tensor = field(repr=False)

    def clouds(self) -> tuple[list[Tensor], list[Tensor]]:
        """See :meth:`Reconstruction.clouds`."""
        predicted = self.head.to_points(self.pred.detach().float(), self.coords)
        shown = self.targets[..., :3] + self.coords[:, :, None]
        visible = [points[~mask].flatten(0, 1) for points, mask in zip(shown, self.mask, strict=True)]
        rebuilt = [points[mask].flatten(0, 1) for points, mask in zip(predicted, self.counted, strict=True)]
        return visible, rebuilt
