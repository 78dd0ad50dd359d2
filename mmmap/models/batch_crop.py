"""Random crops and flips of a whole batch of small images, on the device of the model."""

import math

import torch
from torch import Tensor

from mmmap.utils.device_transfer import send_to_device

# So many crops are drawn; if none fits into the image, its centre is taken (as mmpretrain's RandomResizedCrop).
_ATTEMPTS = 10
# Parameter of the bicubic filter, as in Pillow and in torch's antialiased resizing.
_A = -0.5


def _bicubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    far = ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def resize_weights(start: Tensor, length: Tensor, size: int, out: int, reverse: Tensor | None = None) -> Tensor:
    """Weights of a row's pixels in the pixels of a resized part of the row: bicubic, with antialiasing.

    Args:
        start (Tensor): First pixel of the part in each image, shape (B,).
        length (Tensor): Pixels of the part, shape (B,).
        size (int): Pixels of the row.
        out (int): Pixels of the result.
        reverse (Tensor, optional): True where the result is to be mirrored, bool, shape (B,).

    Returns:
        Tensor: Weights (B, out, size) in float32, each row of which adds up to 1.
    """
    start, length = start.float()[:, None, None], length.float()[:, None, None]
    target = torch.arange(out, device=start.device, dtype=torch.float32)[None, :, None]
    if reverse is not None:
        target = torch.where(reverse[:, None, None], out - 1 - target, target)
    source = torch.arange(size, device=start.device, dtype=torch.float32) + 0.5
    scale = length / out
    weights = _bicubic((source - (start + (target + 0.5) * scale)) / scale.clamp(min=1))
    weights = torch.where((source > start) & (source < start + length), weights, 0.0)
    return weights / weights.sum(dim=-1, keepdim=True)


class BatchRandomResizedCrop:
    """A random resized crop of each image of a batch, half of them mirrored.

    For small images: a GPU crops a batch of them faster than a CPU crops one. Crops are drawn as by mmpretrain's
    ``RandomResizedCrop`` and ``RandomFlip``, and resized by Pillow's bicubic filter as two matrix products. The random
    numbers come from torch's CPU generator, so a seed gives the same crops on every kind of device.

    Args:
        scale (int): Height and width of the result, in pixels.
        crop_ratio_range (tuple[float, float]): Least and largest area of a crop, relative to the image.
        aspect_ratio_range (tuple[float, float]): Least and largest width / height of a crop.
        flip_prob (float): Share of the images that are mirrored.

    Raises:
        ValueError: If a range is not (low, high), or a number is out of range.
    """

    def __init__(
        self,
        scale: int,
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        flip_prob: float = 0.5,
    ) -> None:
        for name, (low, high) in (('crop_ratio_range', crop_ratio_range), ('aspect_ratio_range', aspect_ratio_range)):
            if not 0 < low <= high:
                raise ValueError(f'crop: {name}={(low, high)} must be (low, high) with 0 < low <= high')
        if scale < 1 or not 0 <= flip_prob <= 1:
            raise ValueError(f'crop: scale={scale} must be positive, flip_prob={flip_prob} from 0 to 1')
        self.scale = scale
        self.crop_ratio_range = crop_ratio_range
        self.aspect_ratio_range = aspect_ratio_range
        self.flip_prob = flip_prob

    def draw(self, batch: int, height: int, width: int) -> Tensor:
        """Draw crops of a batch of images of one size in pixels.

        Returns:
            Tensor: y, x, height and width in pixels and 1 where mirrored, shape (B, 5), int64, on the CPU.
        """
        (low, high), (narrow, wide) = self.crop_ratio_range, self.aspect_ratio_range
        area = torch.empty(batch, _ATTEMPTS).uniform_(low, high) * height * width
        aspect = torch.empty(batch, _ATTEMPTS).uniform_(math.log(narrow), math.log(wide)).exp()
        place = torch.rand(batch, 2)
        mirrored = torch.rand(batch) < self.flip_prob
        w, h = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = (fits * torch.arange(_ATTEMPTS, 0, -1)).argmax(dim=1, keepdim=True)
        # If none fits: the largest centre crop that the aspect ratios allow.
        centre_w = min(width, max(1, round(height * wide)))
        centre_h = min(height, max(1, round(width / narrow)))
        some = fits.any(dim=1)
        w = torch.where(some, w.gather(1, first)[:, 0], centre_w)
        h = torch.where(some, h.gather(1, first)[:, 0], centre_h)
        y = torch.where(some, (place[:, 0] * (height - h + 1)).long(), (height - h) // 2)
        x = torch.where(some, (place[:, 1] * (width - w + 1)).long(), (width - w) // 2)
        # A random number just below 1 may round up to 1.
        return torch.stack([y.minimum(height - h), x.minimum(width - w), h, w, mirrored.long()], dim=1)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Crop a batch.

        Args:
            images (Tensor): Pixels from 0 to 255, shape (B, c, H, W), of any type.

        Returns:
            Tensor: Pixels from 0 to 255, not rounded, shape (B, c, scale, scale) in float32.
        """
        batch, _, height, width = images.shape
        y, x, h, w, mirrored = send_to_device(self.draw(batch, height, width), images.device).unbind(dim=1)
        rows = resize_weights(y, h, height, self.scale)
        columns = resize_weights(x, w, width, self.scale, mirrored.bool())
        # Mixed precision would round the pixels to eight bits of mantissa.
        with torch.autocast(images.device.type, enabled=False):
            out = rows[:, None] @ images.float() @ columns[:, None].mT
        return out.clamp_(0, 255)
