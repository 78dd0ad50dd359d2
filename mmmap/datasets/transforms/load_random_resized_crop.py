"""Loading and random cropping of an image in one."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.datasets.transforms import RandomResizedCrop

from mmmap.registry import TRANSFORMS

from ..image_reader import MAX_PIXELS, EncodedImage
from .load_image import LoadImageChecked

# Offset of the upper left corner and size: (y, x, height, width) in pixels.
Box = tuple[int, int, int, int]

# A reduced crop is at least this many times as large as the output; Pillow's `thumbnail` leaves the same reserve. On
# photos the result then differs from that of a full decode by half of what bilinear and bicubic resizing differ.
_REDUCING_GAP = 2


@TRANSFORMS.register_module()
class LoadRandomResizedCrop(LoadImageChecked):
    """Load an image and make a random resized crop of it: faster than a loader and ``RandomResizedCrop``.

    It stands for these two transforms, and works with what mmmap needs anyway::

        dict(type='LoadImageChecked'),
        dict(type='RandomResizedCrop', scale=224, backend='pillow', interpolation='bicubic'),

    Crops are drawn by mmpretrain's ``RandomResizedCrop``, hence from the same distribution (with the same state of
    NumPy's generator even the same crops). Two things make it faster, the first for all images:

    - torch resizes: the antialiasing filter of Pillow (uint8 results differ by 0.03 levels of 255 on average), with
      AVX2 some seven times as fast. On a CPU without AVX2 it is about as fast as Pillow.
    - The crop is drawn from the header, before the image is decoded. Where the crop of a JPEG is at least 4, 8 or 16
      times as high and as wide as the output, the JPEG is decoded at 1/2, 1/4 or 1/8 of its size, which libjpeg does by
      leaving high frequencies out. The crop's corners are then rounded to pixels of the reduced image, which moves them
      by at most a quarter of a pixel of the output (half a pixel if EXIF says to turn the image).

    Broken images are treated as in :class:`LoadImageChecked`. ``RandomFlip`` and ``PackInputs`` of mmpretrain follow.

    Required key: ``img_path``. Added keys: ``img`` ((h, w, 3) uint8, BGR), ``img_shape`` (h, w), ``ori_shape`` (H, W).

    Args:
        scale (int | Sequence[int]): Size of the output, (h, w) or one number for both, in pixels.
        crop_ratio_range (tuple[float, float]): Least and largest area of a crop, relative to the image.
        aspect_ratio_range (tuple[float, float]): Least and largest width / height of a crop.
        max_attempts (int): Draws that do not fit into the image before the centre is taken.
        interpolation (str): ``'bicubic'`` or ``'bilinear'``, both with antialiasing.
        on_error (str): ``'skip'`` or ``'raise'``, as in :class:`LoadImageChecked`.
        max_pixels (int): The most pixels that an image may have; larger ones are refused, as broken ones are.
        backend_args (dict, optional): Which file backend reads the bytes; by default the one of the path's prefix.

    Raises:
        ValueError: If ``interpolation`` or ``on_error`` is none of these, a range is not (min, max), or ``max_pixels``
            is not positive.
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
        # Only its rule is used; the resizing is done here.
        self.crop = RandomResizedCrop(
            scale=scale,
            crop_ratio_range=crop_ratio_range,
            aspect_ratio_range=aspect_ratio_range,
            max_attempts=max_attempts,
            interpolation=interpolation,
        )

    def transform(self, results: dict) -> dict | None:
        """Load a random crop of a sample's image.

        Args:
            results (dict): A sample with ``img_path``.

        Returns:
            dict | None: The sample with its crop; None for a broken image that is skipped.

        Raises:
            OSError: If the image is broken and ``on_error='raise'``.
            RuntimeError: If 100 images in a row were broken, whatever ``on_error`` says.
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
        """The image, perhaps reduced; its size unreduced; the box of the crop in the array given."""
        image = EncodedImage(content, self.max_pixels)
        y, x, h, w = self._draw(image.shape)
        reduction = self._reduction(h, w) if image.reducible else 1
        y0, x0, y1, x1 = ((side + reduction // 2) // reduction for side in (y, x, y + h, x + w))
        return image.pixels(reduction=reduction), image.shape, (y0, x0, y1 - y0, x1 - x0)

    def _draw(self, shape: tuple[int, int]) -> Box:
        # The rule asks for an image but looks at its shape alone.
        return self.crop.rand_crop_params(np.empty((*shape, 0), dtype=np.uint8))

    def _reduction(self, height: int, width: int) -> int:
        """By how much the image may be reduced while it is decoded, for a crop of this size: 1, 2, 4 or 8."""
        ratio = min(height / self.crop.scale[0], width / self.crop.scale[1]) / _REDUCING_GAP
        return max(reduction for reduction in (1, 2, 4, 8) if reduction <= max(ratio, 1))

    def _resize(self, img: np.ndarray) -> np.ndarray:
        # The batch dimension comes first, so that the strides say "channels last", for which torch has a faster path.
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
