"""Reader of JPEG files, which raises an error for missing or damaged data."""

import re
import struct

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image

START = b'\xff\xd8'
_APP1 = 0xE1
# The marker "start of frame" tells the kind: baseline, extended or progressive, with Huffman or arithmetic codes.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN, _ARITHMETIC = (0xC0, 0xC1, 0xC2), (0xC9, 0xCA)
# A block of 8 x 8 takes at least one bit. With the coarsest sampling there is one block per 128 pixels.
_PIXELS_A_BYTE = 8 * 128
# Messages of libjpeg about truncated or damaged data. Extra bytes at the end, which cameras write, are harmless.
_DAMAGE = re.compile('Premature end|Corrupt JPEG data: (?!.*extraneous bytes before marker 0xd9)')


class UnusualJpegError(ValueError):
    """A JPEG that simplejpeg does not decode."""


def exif_orientation(exif: bytes | None) -> int:
    """Read the orientation of an image from EXIF data.

    Args:
        exif (bytes, optional): The data, with or without the prefix ``Exif``.

    Returns:
        int: From 1 (upright) to 8. Also 1 for data that cannot be read.
    """
    if not exif:
        return 1
    try:
        tags = Image.Exif()
        tags.load(exif)
        orientation = tags.get(ExifTags.Base.Orientation, 1)
    # Pillow raises many kinds of errors for broken data.
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def _find_frame(content: bytes) -> tuple[int, int, bytes | None]:
    """Return the marker of the frame (0 if there is none), its bits per sample, and the EXIF data before it."""
    position, exif = 2, None
    while position + 4 < len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == 0xFF:  # Padding.
            position += 1
            continue
        if marker in _FRAMES:
            return marker, content[position + 4], exif
        (length,) = struct.unpack_from('>H', content, position + 2)
        if marker == _APP1 and exif is None and content.startswith(b'Exif', position + 4):
            exif = content[position + 4 : position + 2 + length]
        position += 2 + length
    return 0, 0, exif


class JpegFile:
    """A JPEG whose header has been read.

    Args:
        content (bytes): The file.

    Attributes:
        size (tuple[int, int]): (H, W) before the image is turned.
        orientation (int): The orientation in EXIF, from 1 to 8.

    Raises:
        UnusualJpegError: If simplejpeg does not decode this kind of JPEG, or its header is broken.
        OSError: If the file is too short for its pixels.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        try:
            height, width, self._space, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError as error:
            raise UnusualJpegError(str(error)) from error
        frame, bits, exif = _find_frame(content)
        if frame not in (*_HUFFMAN, *_ARITHMETIC) or bits != 8:
            raise UnusualJpegError(f'frame {frame:#x} of {bits} bits')
        self.size = (height, width)
        self.orientation = exif_orientation(exif)
        if frame in _HUFFMAN and len(content) * _PIXELS_A_BYTE < height * width:
            raise OSError(f'truncated: {len(content)} bytes cannot hold the {height} x {width} pixels of the header')

    def decode(self, color_type: str, reduction: int) -> np.ndarray:
        """Decode the image. It is not turned yet.

        Args:
            color_type (str): ``'color'`` or ``'grayscale'``.
            reduction (int): 1, 2, 4 or 8: divisor of the sides, which are rounded up. Larger divisors are faster, as
                libjpeg leaves out high frequencies.

        Returns:
            np.ndarray: (h, w, 3) BGR, or (h, w) for ``'grayscale'``, uint8.

        Raises:
            OSError: If data are missing or damaged.
            ValueError: If libjpeg cannot decode it.
        """
        if self._space in ('CMYK', 'YCCK'):
            cmyk = self._decode('CMYK', reduction)
            # Adobe stores 255 - ink. The rounding is that of OpenCV.
            key = cmyk[..., 3:].astype(np.int32)
            bgr = np.ascontiguousarray((key - ((255 - cmyk[..., 2::-1]) * key >> 8)).astype(np.uint8))
            return bgr if color_type == 'color' else cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
        if color_type == 'color':
            return self._decode('BGR', reduction)
        return self._decode('GRAY', reduction)[..., 0]

    def _decode(self, space: str, reduction: int) -> np.ndarray:
        least = {'min_height': -(-self.size[0] // reduction), 'min_width': -(-self.size[1] // reduction)}
        try:
            return simplejpeg.decode_jpeg(self.content, space, **least)
        except ValueError as error:
            if _DAMAGE.match(str(error)):
                raise OSError(f'truncated or changed: {error}') from error
        return simplejpeg.decode_jpeg(self.content, space, strict=False, **least)
