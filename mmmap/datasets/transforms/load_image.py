"""Loading of images, with checks for broken files."""

import logging
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log

from mmmap.registry import TRANSFORMS

from ..image_reader import COLOR_TYPES, MAX_PIXELS, RefusedImageError, read_image

# After this many unreadable images in a row, the data set must be broken.
_MAX_BROKEN_IN_A_ROW = 100


@TRANSFORMS.register_module()
class LoadImageChecked(LoadImageFromFile):
    """Load an image from a file. A missing, truncated or otherwise broken file is skipped, or raises an error.

    ``LoadImageFromFile`` fills the missing part of a truncated JPEG with grey and raises no error; this transform does.
    :mod:`mmmap.datasets.image_reader` decodes the image; docs/en/data.md has a table of the formats.

    For a skipped image None is returned. In training, mmengine's ``BaseDataset`` then draws another sample. A test
    cannot replace samples: use ``on_error='raise'`` in test pipelines.

    Required key: ``img_path``; or ``img`` alone, an image that is loaded already, as mmpretrain's inferencers give it.
    Added keys: ``img`` ((H, W, 3) uint8, BGR), ``img_shape``, ``ori_shape``.

    Args:
        on_error (str): ``'skip'``: log the path and the reason, once per process, and return None. ``'raise'``: raise
            an error.
        to_float32 (bool): Convert the image to float32.
        color_type (str): ``'color'``, or ``'grayscale'`` for ``img`` of (H, W).
        max_pixels (int): Most pixels of an image. Larger images are treated like broken ones.
        backend_args (dict, optional): The file backend. By default it is chosen by the prefix of the path.

    Raises:
        ValueError: If ``on_error`` or ``color_type`` is unknown, or ``max_pixels`` is not positive.
    """

    def __init__(
        self,
        on_error: str = 'skip',
        to_float32: bool = False,
        color_type: str = 'color',
        max_pixels: int = MAX_PIXELS,
        backend_args: dict | None = None,
    ) -> None:
        if on_error not in ('skip', 'raise'):
            raise ValueError(f"{type(self).__name__}: on_error must be 'skip' or 'raise', got {on_error!r}")
        if color_type not in COLOR_TYPES:
            raise ValueError(f'{type(self).__name__}: color_type must be one of {COLOR_TYPES}, got {color_type!r}')
        if max_pixels < 1:
            raise ValueError(f'{type(self).__name__}: max_pixels={max_pixels} must be positive')
        super().__init__(to_float32=to_float32, color_type=color_type, backend_args=backend_args)
        self.on_error = on_error
        self.max_pixels = max_pixels
        self._named: set[str] = set()
        self._broken_in_a_row = 0

    def transform(self, results: dict) -> dict | None:
        """Load the image of a sample; None for a skipped image.

        Raises:
            OSError: If the image is broken and ``on_error='raise'``.
            RuntimeError: If 100 images in a row were broken and skipped.
        """
        if 'img_path' in results:
            img = self._read(results['img_path'])
        else:
            img = mmcv.bgr2gray(results['img']) if self.color_type == 'grayscale' else results['img']
        if img is None:
            return None
        if self.to_float32:
            img = img.astype(np.float32)
        results['img'] = img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _read(self, path: str) -> Any:
        """Read and decode a file. If it is broken and ``on_error='skip'``, log it and return None."""
        try:
            decoded = self._decode(fileio.get(path, backend_args=self.backend_args))
        except MemoryError:
            raise
        # File backends raise many kinds of errors.
        except Exception as error:
            self._report(path, ' '.join(str(error).split()) or type(error).__name__, error)
            return None
        self._broken_in_a_row = 0
        return decoded

    def _decode(self, content: bytes) -> Any:
        return read_image(content, self.color_type, self.max_pixels)

    def _report(self, path: str, reason: str, error: Exception) -> None:
        kind = 'refused' if isinstance(error, RefusedImageError) else 'broken'
        if self.on_error == 'raise':
            raise OSError(f'{kind} image {path}: {reason}') from error
        self._broken_in_a_row += 1
        if self._broken_in_a_row >= _MAX_BROKEN_IN_A_ROW:
            raise RuntimeError(
                f'{self._broken_in_a_row} images in a row could not be read, the last one {path}: {reason}'
            ) from error
        if path not in self._named:
            self._named.add(path)
            # ERROR, because other ranks than 0 log only errors.
            print_log(f'Skipped {kind} image {path}: {reason}', logger='current', level=logging.ERROR)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(on_error={self.on_error!r}, to_float32={self.to_float32}, '
            f'color_type={self.color_type!r}, max_pixels={self.max_pixels}, backend_args={self.backend_args})'
        )
