"""Pictures of images that a pretraining model reconstructs."""

import numpy as np
import torch
from torch import Tensor, nn

from mmmap.models.reconstruction_results import ImageReconstruction

#: Grey of hidden patches and white of the lines between images, in [0, 255].
HIDDEN, LINE = 128, 255
LINE_WIDTH = 2
#: Smaller images are enlarged by whole factors up to this many pixels.
VISIBLE_SIDE = 112


def to_pixels(images: Tensor, data_preprocessor: nn.Module | None) -> Tensor:
    """Undo the normalisation of images, and convert them to RGB.

    Args:
        images (Tensor): Preprocessed images, shape (B, c, H, W), with any number c of channels.
        data_preprocessor (nn.Module, optional): The module that normalised them, with its mean and std.

    Returns:
        Tensor: RGB images (B, 3, H, W) in [0, 255]. Unless there are three channels, their mean is shown in grey.
    """
    mean, std = getattr(data_preprocessor, 'mean', None), getattr(data_preprocessor, 'std', None)
    if mean is not None and std is not None:
        images = images * std.to(images.device) + mean.to(images.device)
    if images.shape[1] == 3:
        return images
    return images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def draw_reconstruction(
    reconstruction: ImageReconstruction, inputs: Tensor, data_preprocessor: nn.Module | None = None, columns: int = 2
) -> np.ndarray:
    """Draw original, masked and reconstructed images side by side.

    The reconstructed image has predictions in the hidden patches and the original pixels elsewhere. One channel is
    drawn in grey, three as RGB in [0, 255]. For other numbers the mean of the channels is drawn in grey, from the
    smallest to the largest value of the originals, because their range is not known.

    Args:
        reconstruction (ImageReconstruction): The model's result on ``inputs``.
        inputs (Tensor): Preprocessed images, shape (B, c, H, W).
        data_preprocessor (nn.Module, optional): The module that normalised them, with its mean and std.
        columns (int): Triples of images per row. Defaults to 2.

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.
    """
    rebuilt = to_pixels(reconstruction.images().float(), data_preprocessor)
    rows_of_tokens, columns_of_tokens = reconstruction.grid
    height, width = inputs.shape[-2:]
    hidden = reconstruction.mask.view(-1, 1, rows_of_tokens, columns_of_tokens)
    hidden = hidden.repeat_interleave(height // rows_of_tokens, 2).repeat_interleave(width // columns_of_tokens, 3)
    original = to_pixels(inputs.float(), data_preprocessor)
    if inputs.shape[1] not in (1, 3):
        low, high = original.min(), original.max()
        original, rebuilt = (255 * (images - low) / (high - low).clamp(min=1e-6) for images in (original, rebuilt))
    masked = original.masked_fill(hidden, HIDDEN)
    triples = torch.stack([original, masked, torch.where(hidden, rebuilt, original)], dim=1)
    zoom = max(1, VISIBLE_SIDE // max(height, width))
    triples = triples.repeat_interleave(zoom, 3).repeat_interleave(zoom, 4)
    triples = torch.nn.functional.pad(triples, (LINE_WIDTH, LINE_WIDTH, LINE_WIDTH, LINE_WIDTH), value=LINE)
    count = -(-len(triples) // columns) * columns
    blank = torch.full_like(triples[:1], LINE).expand(count - len(triples), -1, -1, -1, -1)
    tiles = torch.cat([triples, blank]).unflatten(0, (-1, columns))  # (rows, columns, 3, c, h, w)
    picture = tiles.permute(0, 4, 1, 2, 5, 3).flatten(2, 4).flatten(0, 1)
    return picture.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
