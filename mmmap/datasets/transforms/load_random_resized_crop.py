"""Loading and random cropping of an image in one."""

import struct
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.datasets.transforms import RandomResizedCrop
from PIL import ExifTags, Image

from mmmap.registry import TRANSFORMS

from .load_image import LoadImageChecked, decode_image, is_whole_jpeg

# Offset of the upper left corner and size: (y, x, height, width) in pixels.
Box = tuple[int, int, int, int]

# A reduced crop is at least this many times as large as the output; Pillow's `thumbnail` leaves the same reserve. On
# photos the result then differs from that of a full decode by half of what bilinear and bicubic resizing differ.
_REDUCING_GAP = 2

# Markers of JPEG segments: "start of frame" (all of 0xC0 to 0xCF but three) holds the size, APP1 what EXIF says.
_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1 = 0xE1


def _header_shape(content: bytes) -> tuple[int, int] | None:
    """(H, W) of a JPEG once turned as EXIF says; None if its header is odd (OpenCV may read the image still).

    `Image.open` would tell too, in up to a tenth of the time that decoding takes.
    """
    position, turned = 2, False
    try:
        while content[position] == 0xFF:
            marker, length = struct.unpack_from('>BH', content, position + 1)
            if marker in _START_OF_FRAME:
                height, width = struct.unpack_from('>HH', content, position + 5)
                return (width, height) if turned else (height, width)
            segment = content[position + 4 : position + 2 + length]
            if marker == _APP1 and segment.startswith(b'Exif'):
                exif = Image.Exif()
                exif.load(segment)
                turned = exif.get(ExifTags.Base.Orientation, 1) >= 5
            position += 2 + length
    # Pillow raises many kinds of errors for broken EXIF data.
    except Exception:
        pass
    return None


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
    - The crop is drawn from the header of a JPEG, before the image is decoded. Where the crop is at least 4, 8 or 16
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
        backend_args (dict, optional): Which file backend reads the bytes; by default the one of the path's prefix.

    Raises:
        ValueError: If ``interpolation`` or ``on_error`` is none of these, or a range is not (min, max).
    """

    def __init__(
        self,
        scale: int | Sequence[int],
        crop_ratio_range: tuple[float, float] = (0.08, 1.0),
        aspect_ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
        max_attempts: int = 10,
        interpolation: str = 'bicubic',
        on_error: str = 'skip',
        backend_args: dict | None = None,
    ) -> None:
        super().__init__(on_error=on_error, backend_args=backend_args)
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
        shape = _header_shape(content) if is_whole_jpeg(content) else None
        box = None if shape is None else self._draw(shape)
        if box is not None and (reduction := self._reduction(box)) > 1:
            img = decode_image(content, reduction=reduction)
            if img.shape[:2] == tuple(-(-side // reduction) for side in shape):
                y0, x0, y1, x1 = (
                    (side + reduction // 2) // reduction for side in (box[0], box[1], box[0] + box[2], box[1] + box[3])
                )
                return img, shape, (y0, x0, y1 - y0, x1 - x0)
        img = decode_image(content)
        if shape != img.shape[:2]:
            # No JPEG; or the decoder makes other sense of the header than Pillow does.
            shape = img.shape[:2]
            box = self._draw(shape)
        return img, shape, box

    def _draw(self, shape: tuple[int, int]) -> Box:
        # The rule asks for an image but looks at its shape alone.
        return self.crop.rand_crop_params(np.empty((*shape, 0), dtype=np.uint8))

    def _reduction(self, box: Box) -> int:
        """By how much the image may be reduced while it is decoded: 1, 2, 4 or 8."""
        ratio = min(box[2] / self.crop.scale[0], box[3] / self.crop.scale[1]) / _REDUCING_GAP
        return max(reduction for reduction in (1, 2, 4, 8) if reduction <= max(ratio, 1))

    def _resize(self, img: np.ndarray) -> np.ndarray:
        # The batch dimension comes first, so that the strides say "channels last", for which torch has a faster path.
        # Pillow's images run backwards through the channels, which torch cannot read.
        batch = torch.from_numpy(img if min(img.strides) > 0 else img.copy())[None].permute(0, 3, 1, 2)
        resized = F.interpolate(batch, tuple(self.crop.scale), mode=self.crop.interpolation, antialias=True)
        return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(scale={tuple(self.crop.scale)}, crop_ratio_range={self.crop.crop_ratio_range}, '
            f'aspect_ratio_range={self.crop.aspect_ratio_range}, max_attempts={self.crop.max_attempts}, '
            f'interpolation={self.crop.interpolation!r}, on_error={self.on_error!r}, backend_args={self.backend_args})'
        )
