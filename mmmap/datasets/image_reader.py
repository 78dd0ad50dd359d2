"""The reader of images: from the bytes of a file to pixels.

simplejpeg (libjpeg-turbo) decodes JPEG, because it reports missing data. Pillow decodes all other formats.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from .jpeg_reader import START, JpegFile, UnusualJpegError
from .pillow_reader import PillowFile, RefusedImageError

#: Default for the most pixels of an image: 1.5 GB once decoded.
MAX_PIXELS = 500_000_000
#: Lower-case suffixes of the formats. The content of a file, not its suffix, decides how it is read.
IMAGE_SUFFIXES = frozenset(
    {'.jpg', '.jpeg', '.jpe', '.jfif', '.png', '.apng', '.bmp', '.dib', '.gif', '.tif', '.tiff', '.webp'}
    | {'.avif', '.avifs', '.jp2', '.j2k', '.j2c', '.jpc', '.jpx', '.jpf', '.ppm', '.pgm', '.pbm', '.pnm'}
)
#: Values of ``color_type``.
COLOR_TYPES = ('color', 'grayscale')

# How to turn an image, by the orientation in EXIF.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda img: img,
    2: lambda img: cv2.flip(img, 1),
    3: lambda img: cv2.rotate(img, cv2.ROTATE_180),
    4: lambda img: cv2.flip(img, 0),
    5: cv2.transpose,
    6: lambda img: cv2.rotate(img, cv2.ROTATE_90_CLOCKWISE),
    7: lambda img: cv2.rotate(cv2.transpose(img), cv2.ROTATE_180),
    8: lambda img: cv2.rotate(img, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn all errors of a decoder into an OSError of one line."""
    try:
        yield
    except (MemoryError, RefusedImageError):
        raise
    # Decoders raise many kinds of errors for broken bytes (SyntaxError, ValueError, struct.error, ...).
    except Exception as error:
        # Without the name of Pillow's buffer in memory.
        reason = ' '.join(str(error).split(' <_io.')[0].split())
        raise OSError(reason or type(error).__name__) from error


class EncodedImage:
    """An image whose header has been read, but not its pixels.

    Args:
        content (bytes): The file.
        max_pixels (int): Most pixels of the image.

    Attributes:
        shape (tuple[int, int]): (H, W) after the image is turned as EXIF says.
        reducible (bool): Whether it can be decoded at a fraction of its size.

    Raises:
        OSError: If the file is broken or its format is not supported. One line without the path.
        RefusedImageError: An OSError too, if it is too large or cannot be converted faithfully to 8-bit RGB.
    """

    def __init__(self, content: bytes, max_pixels: int = MAX_PIXELS) -> None:
        with _one_line_errors():
            self._file = self._open(content)
            height, width = self._file.size
            if height * width > max_pixels:
                raise RefusedImageError(f'{height} x {width} pixels are more than max_pixels={max_pixels}')
        self.shape = (width, height) if self._file.orientation >= 5 else (height, width)
        self.reducible = isinstance(self._file, JpegFile)

    @staticmethod
    def _open(content: bytes) -> JpegFile | PillowFile:
        if content.startswith(START):
            try:
                return JpegFile(content)
            except UnusualJpegError:
                pass
        return PillowFile(content)

    def pixels(self, color_type: str = 'color', reduction: int = 1) -> np.ndarray:
        """Decode the image.

        Args:
            color_type (str): ``'color'`` or ``'grayscale'``.
            reduction (int): Divisor of the sides, which are rounded up: 1; or 2, 4 or 8 for a reducible image.

        Returns:
            np.ndarray: (H, W, 3) BGR, or (H, W) for ``'grayscale'``, uint8, turned as EXIF says, without alpha. The
            first frame or page of several.

        Raises:
            OSError: If data are missing or damaged. One line without the path.
            RefusedImageError: An OSError too, if it cannot be converted faithfully to 8-bit RGB.
            ValueError: If ``color_type`` is unknown, or the image cannot be reduced by ``reduction``.
        """
        if color_type not in COLOR_TYPES:
            raise ValueError(f'color_type must be one of {COLOR_TYPES}, got {color_type!r}')
        if reduction not in ((1, 2, 4, 8) if self.reducible else (1,)):
            raise ValueError(f'the image cannot be reduced by {reduction}')
        with _one_line_errors():
            return _TURNS[self._file.orientation](self._file.decode(color_type, reduction))


def read_image(content: bytes, color_type: str = 'color', max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an image at once; see :class:`EncodedImage` for the arguments, the result and the errors."""
    return EncodedImage(content, max_pixels).pixels(color_type)
