"""JPEG files: what the header says, and pixels from a decoder that tells what it had to make up."""

import re
import struct

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image

START = b'\xff\xd8'
_APP1 = 0xE1
# "Start of frame", which tells the kind: baseline, extended and progressive with Huffman codes; with arithmetic codes.
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HUFFMAN, _ARITHMETIC = (0xC0, 0xC1, 0xC2), (0xC9, 0xCA)
# Each block of 8 x 8 has a code of one bit at least, and the rarest sampling has a block for each 128 pixels.
_PIXELS_A_BYTE = 8 * 128
# What libjpeg says of data that are cut or changed. Bytes left over at the end, as cameras write, harm no pixel.
_DAMAGE = re.compile('Premature end|Corrupt JPEG data: (?!.*extraneous bytes before marker 0xd9)')


class UnusualJpegError(ValueError):
    """A JPEG that simplejpeg does not decode."""


def exif_orientation(exif: bytes | None) -> int:
    """How EXIF data say that an image is to be turned.

    Args:
        exif (bytes, optional): The data, with or without the ``Exif`` in front.

    Returns:
        int: 1 (not at all) to 8. Data that cannot be read say nothing.
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


def _walk(content: bytes) -> tuple[int, int, bytes | None]:
    """The marker of the frame (0 if there is none), its bits a sample, and the EXIF data before it."""
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
    """A JPEG whose header was read.

    Args:
        content (bytes): The file.

    Attributes:
        size (tuple[int, int]): (H, W) before it is turned.
        orientation (int): How it is to be turned, as EXIF counts.

    Raises:
        UnusualJpegError: If simplejpeg does not decode this kind of JPEG, or it is broken from the start.
        OSError: If the file is too short for its pixels.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        try:
            height, width, self._space, _ = simplejpeg.decode_jpeg_header(content)
        except ValueError as error:
            raise UnusualJpegError(str(error)) from error
        frame, bits, exif = _walk(content)
        if frame not in (*_HUFFMAN, *_ARITHMETIC) or bits != 8:
            raise UnusualJpegError(f'frame {frame:#x} of {bits} bits')
        self.size = (height, width)
        self.orientation = exif_orientation(exif)
        if frame in _HUFFMAN and len(content) * _PIXELS_A_BYTE < height * width:
            raise OSError(f'truncated: {len(content)} bytes cannot hold the {height} x {width} pixels of the header')

    def decode(self, color_type: str, reduction: int) -> np.ndarray:
        """Decode it, at the size divided by ``reduction`` (1, 2, 4 or 8) and rounded up, before it is turned.

        Args:
            color_type (str): ``'color'`` or ``'grayscale'``.
            reduction (int): 2, 4 and 8 cost a fraction: libjpeg leaves high frequencies out.

        Returns:
            np.ndarray: (h, w, 3) BGR, or (h, w) for ``'grayscale'``, uint8.

        Raises:
            OSError: If data are missing or changed.
            ValueError: If libjpeg cannot decode it at all.
        """
        if self._space in ('CMYK', 'YCCK'):
            cmyk = self._decode('CMYK', reduction)
            # Adobe's files hold 255 - ink. The rounding is OpenCV's.
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
