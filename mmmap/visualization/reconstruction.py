"""Pictures of what a pretraining model rebuilds."""

import numpy as np
import torch
from torch import Tensor, nn

from mmmap.models.selfsup import Reconstruction

#: Grey of hidden patches, white of the lines between the columns, in [0, 255].
HIDDEN, LINE = 128, 255
LINE_WIDTH = 2
#: Images smaller than this many pixels are enlarged by whole factors up to it, so that a digit can be seen.
VISIBLE_SIDE = 112


def to_pixels(images: Tensor, data_preprocessor: nn.Module | None) -> Tensor:
    """Undo the normalisation and make images something to look at.

    Args:
        images (Tensor): Preprocessed images, shape (B, c, H, W), of any number c of channels.
        data_preprocessor (nn.Module, optional): Tells the mean and std to undo.

    Returns:
        Tensor: RGB images (B, 3, H, W) in [0, 255]: one channel as grey, three as they are, of any other number the
        mean of the channels as grey.
    """
    mean, std = getattr(data_preprocessor, 'mean', None), getattr(data_preprocessor, 'std', None)
    if mean is not None and std is not None:
        images = images * std.to(images.device) + mean.to(images.device)
    if images.shape[1] == 3:
        return images
    return images.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)


def draw_reconstruction(
    reconstruction: Reconstruction, inputs: Tensor, data_preprocessor: nn.Module | None = None, columns: int = 2
) -> np.ndarray:
    """Draw original, masked and rebuilt images side by side.

    In the rebuilt image hidden patches are predictions and visible ones the original's. Images of one channel are grey,
    those of three are taken for RGB in [0, 255]. Of any other number the mean of the channels is drawn in grey, scaled
    from the darkest to the brightest of the originals, as such channels have no range in common.

    Args:
        reconstruction (Reconstruction): What the model made of ``inputs``.
        inputs (Tensor): Preprocessed images, shape (B, c, H, W).
        data_preprocessor (nn.Module, optional): Tells the mean and std to undo.
        columns (int): Triples of pictures in a row. Defaults to 2.

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
    triples = torch.stack(
        [
            original,
            torch.where(hidden, torch.full_like(original, HIDDEN), original),
            torch.where(hidden, rebuilt, original),
        ],
        dim=1,
    )
    zoom = max(1, VISIBLE_SIDE // max(height, width))
    triples = triples.repeat_interleave(zoom, 3).repeat_interleave(zoom, 4)
    triples = torch.nn.functional.pad(triples, (LINE_WIDTH, LINE_WIDTH, LINE_WIDTH, LINE_WIDTH), value=LINE)
    count = -(-len(triples) // columns) * columns
    blank = torch.full_like(triples[:1], LINE).expand(count - len(triples), -1, -1, -1, -1)
    tiles = torch.cat([triples, blank]).unflatten(0, (-1, columns))  # (rows, columns, 3, c, h, w)
    picture = tiles.permute(0, 4, 1, 2, 5, 3).flatten(2, 4).flatten(0, 1)
    return picture.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
