"""Loading of images that may be broken."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import mmcv
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine import fileio
from mmengine.logging import print_log
from PIL import ImageFile

from mmmap.registry import TRANSFORMS

# So many unreadable images in a row mean that the data set, not an image, is broken.
_MAX_BROKEN_IN_A_ROW = 100


_JPEG_START, _JPEG_END = b'\xff\xd8', b'\xff\xd9'

_REDUCED_COLOR = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


@contextmanager
def _truncated_images_raise() -> Iterator[None]:
    # A global of Pillow that other libraries set: with it Pillow fills the missing part of an image with grey.
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def is_whole_jpeg(content: bytes) -> bool:
    """Tell whether OpenCV may be trusted with an image: whether it is a JPEG that ends in its end-of-image marker.

    Args:
        content (bytes): An image file.

    Returns:
        bool: False for other formats, and for a JPEG with more than padding after the marker: Pillow judges those.

    Raises:
        OSError: If it is a JPEG without that marker, hence truncated.
    """
    if not content.startswith(_JPEG_START):
        return False
    if content.rstrip(b'\0').endswith(_JPEG_END):
        return True
    if _JPEG_END not in content:
        raise OSError('JPEG without an end-of-image marker: truncated')
    return False


def decode_image(content: bytes, color_type: str = 'color', reduction: int = 1) -> np.ndarray:
    """Decode an image, or notice that it is broken.

    Args:
        content (bytes): An image file.
        color_type (str): A flag of :func:`mmcv.imfrombytes`.
        reduction (int): 2, 4 or 8 decodes a whole JPEG (:func:`is_whole_jpeg`) in colour to the size divided by this,
            rounded up, at a fraction of the cost.

    Returns:
        np.ndarray: (H, W, 3) uint8, BGR, turned as EXIF says, for the default color type.

    Raises:
        OSError: If the image is truncated or undecodable. Pillow raises other exceptions too.
    """
    if reduction > 1:
        img = mmcv.imfrombytes(content, flag=_REDUCED_COLOR[reduction], backend='cv2')
    else:
        backend = 'cv2' if is_whole_jpeg(content) else 'pillow'
        img = mmcv.imfrombytes(content, flag=color_type, backend=backend)
    if img is None:
        raise OSError('OpenCV cannot decode it')
    return img


@TRANSFORMS.register_module()
class LoadImageChecked(LoadImageFromFile):
    """Load an image from a file; name a missing, truncated or otherwise broken one and skip it, or raise.

    OpenCV, the default decoder of ``LoadImageFromFile``, fills what a truncated JPEG lacks with grey and says nothing
    to the program; Pillow raises but takes nearly twice the time. A JPEG that ends in its end-of-image marker is not
    truncated (the marker cannot occur within compressed data), so OpenCV decodes it; Pillow decodes all else. Either
    way an image is decoded once. Bytes altered in the middle of a JPEG are noticed by neither decoder.

    Skipping returns None, upon which mmengine's ``BaseDataset`` draws another sample in training. When testing no
    sample can be replaced: use ``on_error='raise'`` in test pipelines.

    Required key: ``img_path``. Added keys: ``img`` ((H, W, 3) uint8, BGR), ``img_shape``, ``ori_shape``.

    Args:
        on_error (str): ``'skip'``: log the path and the reason, once per process, and return None. ``'raise'``: raise.
        to_float32 (bool): Convert the image to float32.
        color_type (str): ``'color'``, ``'grayscale'`` or another flag of :func:`mmcv.imfrombytes`.
        backend_args (dict, optional): Which file backend reads the bytes; by default the one of the path's prefix.

    Raises:
        ValueError: If ``on_error`` is neither.
    """

    def __init__(
        self,
        on_error: str = 'skip',
        to_float32: bool = False,
        color_type: str = 'color',
        backend_args: dict | None = None,
    ) -> None:
        if on_error not in ('skip', 'raise'):
            raise ValueError(f"LoadImageChecked: on_error must be 'skip' or 'raise', got {on_error!r}")
        super().__init__(to_float32=to_float32, color_type=color_type, backend_args=backend_args)
        self.on_error = on_error
        self._named: set[str] = set()
        self._broken_in_a_row = 0

    def transform(self, results: dict) -> dict | None:
        """Load the image of a sample.

        Args:
            results (dict): A sample with ``img_path``.

        Returns:
            dict | None: The sample with its image; None for a broken image that is skipped.

        Raises:
            OSError: If the image is broken and ``on_error='raise'``.
            RuntimeError: If 100 images in a row were broken, whatever ``on_error`` says.
        """
        img = self._read(results['img_path'])
        if img is None:
            return None
        if self.to_float32:
            img = img.astype(np.float32)
        results['img'] = img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def _read(self, path: str) -> Any:
        """What ``_decode`` makes of a file's bytes; None, after a line in the log, if the file is broken."""
        try:
            with _truncated_images_raise():
                decoded = self._decode(fileio.get(path, backend_args=self.backend_args))
        except MemoryError:
            raise
        # Decoders raise many kinds of errors for broken bytes (OSError, SyntaxError, ValueError, struct.error, ...).
        except Exception as error:
            # Pillow names its in-memory buffer, which tells nobody anything.
            reason = str(error).split(' <_io.')[0] or type(error).__name__
            self._report(path, reason, error)
            return None
        self._broken_in_a_row = 0
        return decoded

    def _decode(self, content: bytes) -> Any:
        return decode_image(content, self.color_type)

    def _report(self, path: str, reason: str, error: Exception) -> None:
        if self.on_error == 'raise':
            raise OSError(f'broken image {path}: {reason}') from error
        self._broken_in_a_row += 1
        if self._broken_in_a_row >= _MAX_BROKEN_IN_A_ROW:
            raise RuntimeError(
                f'{self._broken_in_a_row} images in a row could not be read, the last one {path}: {reason}'
            ) from error
        if path not in self._named:
            self._named.add(path)
            # ERROR, because ranks other than 0 log nothing below it.
            print_log(f'Skipped broken image {path}: {reason}', logger='current', level=logging.ERROR)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(on_error={self.on_error!r}, to_float32={self.to_float32}, '
            f'color_type={self.color_type!r}, backend_args={self.backend_args})'
        )
