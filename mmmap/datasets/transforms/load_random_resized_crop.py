"""Loading and random cropping of an image in one step."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.datasets.transforms import RandomResizedCrop

from mmmap.registry import TRANSFORMS

from ..image_reader import MAX_PIXELS, EncodedImage
from .load_image import LoadImageChecked

# Upper left corner and size in pixels: (y, x, height, width).
Box = tuple[int, int, int, int]

# A reduced crop is at least this many times as large as the output, as in Pillow's `thumbnail`. On photos, the
# difference to a full decode is then half the difference between bilinear and bicubic resizing.
_REDUCING_GAP = 2


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(LoadImageChecked):
    """Load a random resized crop of an image, faster than with two transforms.

    It replaces these two transforms, and needs no further package::

        dict(type='LoadImageChecked'),
        dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),

    Crops are drawn by mmpretrain's ``RandomResizedCrop``. With the same state of NumPy's generator they are the same.
    Two things make it faster:

    - torch resizes, with the antialiasing filter of Pillow (uint8 results differ by 0.03 levels of 255 on average). It
      is about seven times as fast with AVX2, and about as fast as Pillow without.
    - The crop is drawn before the image is decoded. If the crop of a JPEG is at least 4, 8 or 16 times as high and as
      wide as the output, the JPEG is decoded at 1/2, 1/4 or 1/8 of its size: libjpeg leaves out high frequencies. The
      corners of the crop are then rounded to pixels of the reduced image. This moves them by at most a quarter of a
      pixel of the output (half a pixel if EXIF rotates the image).

    Broken images are treated as in :class:`LoadImageChecked`. ``RandomFlip`` and ``PackInputs`` of mmpretrain may
    follow.

    Required key: ``img_path``. Added keys: ``img`` ((h, w, 3) uint8, BGR), ``img_shape`` (h, w), ``ori_shape`` (H, W).

    Args:
        scale (int | Sequence[int]): Size of the output, (h, w) or one number for both, in pixels.
        crop_ratio_range (tuple[float, float]): Smallest and largest area of a crop, relative to the image.
        aspect_ratio_range (tuple[float, float]): Smallest and largest width / height of a crop.
        max_attempts (int): Attempts to draw a crop that fits into the image. Then the centre is taken.
        interpolation (str): ``'bicubic'`` or ``'bilinear'``, both with antialiasing.
        on_error (str): ``'skip'`` or ``'raise'``, as in :class:`LoadImageChecked`.
        max_pixels (int): Most pixels of an image. Larger images are treated like broken ones.
        backend_args (dict, optional): The file backend. By default it is chosen by the prefix of the path.

    Raises:
        ValueError: If ``interpolation`` or ``on_error`` is unknown, a range is not (min, max), or ``max_pixels`` is not
            positive.
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        on_error: str = 'skip',
        max_pixels: int = MAX_PIXELS,
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(on_error=on_error, max_pixels=max_pixels, backend_args=backend_args)
        if interpolation not in ('bicubic', 'bilinear'):
            raise ValueError(
                f"LoadRandomResizedCrop: interpolation must be 'bicubic' or 'bilinear', got {interpolation!r}"
            )
        # It only draws the crops. The resizing is done here.
        self.crop = RandomResizedCrop(
            scale=scale,
            crop_ratio_range=crop_ratio_range,
            aspect_ratio_range=aspect_ratio_range,
            max_attempts=max_attempts,
            interpolation=interpolation,
        )

    def transform(self, results: dict) -> dict | None:
        """Load a random crop of the image of a sample; None for a skipped image.

        Raises:
            OSError: If the image is broken and ``on_error='raise'``.
            RuntimeError: If 100 images in a row were broken and skipped.
        """
        decoded = self._read(results['img_path'])
        if decoded is None:
            return None
        img, ori_shape, (y, x, h, w) = decoded
        results['img'] = self._resize(img[y : y + h, x : x + w])
        results['img_shape'] = results['img'].shape[:2]
        results['ori_shape'] = ori_shape
        return results

    def _decode(self, content: bytes) -> tuple[np.ndarray, tuple[int, int], Box]:
        """Return the image, perhaps reduced; its full size; and the box of the crop in the returned image."""
        image = EncodedImage(content, self.max_pixels)
        y, x, h, w = self._draw(image.shape)
        reduction = self._reduction(h, w) if image.reducible else 1
        y0, x0, y1, x1 = ((side + reduction // 2) // reduction for side in (y, x, y + h, x + w))
        return image.pixels(reduction=reduction), image.shape, (y0, x0, y1 - y0, x1 - x0)

    def _draw(self, shape: tuple[int, int]) -> Box:
        # Only the shape of the given image is used.
        return self.crop.rand_crop_params(np.empty((*shape, 0), dtype=np.uint8))

    def _reduction(self, height: int, width: int) -> int:
        """Largest allowed reduction of the image for a crop of this size: 1, 2, 4 or 8."""
        ratio = min(height / self.crop.scale[0], width / self.crop.scale[1]) / _REDUCING_GAP
        return max(reduction for reduction in (1, 2, 4, 8) if reduction <= max(ratio, 1))

    def _resize(self, img: np.ndarray) -> np.ndarray:
        # The strides are channels-last, for which torch is faster.
        batch = torch.from_numpy(img)[None].permute(0, 3, 1, 2)
        resized = F.interpolate(batch, tuple(self.crop.scale), mode=self.crop.interpolation, antialias=True)
        return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={tuple(self.crop.scale)}, crop_ratio_range={self.crop.crop_ratio_range}, '
            f'aspect_ratio_range={self.crop.aspect_ratio_range}, max_attempts={self.crop.max_attempts}, '
            f'interpolation={self.crop.interpolation!r}, on_error={self.on_error!r}, max_pixels={self.max_pixels}, '
            f'backend_args={self.backend_args})'
        )
