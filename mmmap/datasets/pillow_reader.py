"""Reader of the image files that Pillow decodes: all formats but JPEG."""

import io
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError, features
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from .jpeg_reader import exif_orientation

# Pillow's names. JPEG is for the rare kinds that simplejpeg does not decode.
_FORMATS = ('PNG', 'BMP', 'DIB', 'GIF', 'TIFF', 'WEBP', 'AVIF', 'JPEG2000', 'PPM', 'JPEG')
# Formats that a build of Pillow may lack: the start of such files, and Pillow's name of the feature.
_OPTIONAL = {
    'WebP': (re.compile(b'RIFF....WEBP', re.DOTALL), 'webp'),
    'AVIF': (re.compile(b'....ftypavi', re.DOTALL), 'avif'),
    'JPEG 2000': (re.compile(b'....jP  |\xff\x4f\xff\x51', re.DOTALL), 'jpg_2000'),
}
_CODESTREAM = b'\xff\x4f\xff\x51'
_TIFF_STARTS = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')
_COLOR_MODES = ('P', 'PA', 'RGB', 'RGBA', 'RGBX', 'CMYK', 'YCbCr')


class RefusedImageError(OSError):
    """An image that is too large, cannot be converted faithfully to 8-bit RGB, or needs another build of Pillow."""


class _Settings:
    """Pillow's global settings while images are read: truncated images raise errors, and any size is allowed.

    With several threads, the first reader changes the settings, and the last one restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        # Only the thread that forked is left, and it is not reading.
        self._lock = threading.Lock()
        if self._readers:
            self._readers = 0
            self._restore()

    def _restore(self) -> None:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = self._before

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._readers:
                self._before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if not self._readers:
                    self._restore()


_settings = _Settings()


def _tiff_kind(tags: ImageFileDirectory_v2) -> str:
    """Describe the numbers in a TIFF."""
    number = {1: 'unsigned integer', 2: 'signed integer', 3: 'float'}.get(max(tags.get(339, (1,))), 'other')
    return f'TIFF of {tags.get(277, 1)} channel(s) of {max(tags.get(258, (1,)))}-bit {number} numbers'


def _check_tiff(tags: ImageFileDirectory_v2) -> None:
    """Refuse numbers whose range is unknown, and those that Pillow reads wrongly."""
    bits = max(tags.get(258, (1,)))
    if set(tags.get(339, (1,))) != {1} or bits > 16:
        raise RefusedImageError(
            f'{_tiff_kind(tags)}: black and white are not known, scale the numbers to unsigned 8 or 16 bits'
        )
    if bits > 8 and tags.get(284, 1) == 2:
        raise RefusedImageError(f'{_tiff_kind(tags)}, in separate planes: write the channels of a pixel together')


def _check_jpeg2000(content: bytes, mode: str) -> None:
    """Refuse colours of more than 8 bits: Pillow turns white into black."""
    # 38 bytes after its marker, the header of the codestream has the number of bits of the first channel, minus 1.
    place = content.find(_CODESTREAM) + len(_CODESTREAM) + 38
    if place >= len(content):
        raise OSError('truncated JPEG 2000')
    bits = (content[place] & 0x7F) + 1
    if bits > (16 if mode == 'I;16' else 8):
        raise RefusedImageError(f'JPEG 2000 of {bits}-bit numbers, mode {mode!r}: save it as 8-bit grey or RGB')


def _refuse_unknown(content: bytes) -> None:
    """Raise an error that says why Pillow cannot identify a file."""
    if content.startswith(_TIFF_STARTS):
        tags = ImageFileDirectory_v2(content[: 16 if b'+' in content[2:4] else 8])
        stream = io.BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        if not {256, 257, 262} <= tags.keys() or not {273, 324} & tags.keys():
            raise OSError('truncated TIFF: its size or the position of its pixels is missing')
        _check_tiff(tags)
        raise RefusedImageError(f'{_tiff_kind(tags)}, which Pillow does not know: save it as grey or RGB')
    raise OSError(
        'not an image of a supported format (JPEG, PNG, TIFF, WebP, GIF, BMP, AVIF, JPEG 2000, PNM), or truncated'
    )


def _check_build(content: bytes) -> None:
    for name, (start, feature) in _OPTIONAL.items():
        if start.match(content) and not features.check(feature):
            raise RefusedImageError(f'{name}, which this build of Pillow cannot read: install one with {feature!r}')


class PillowFile:
    """An image file that Pillow decodes; the first frame or page of several.

    Args:
        content (bytes): The file.

    Attributes:
        size (tuple[int, int]): (H, W) before the image is turned.
        orientation (int): The orientation in EXIF, from 1 to 8.

    Raises:
        RefusedImageError: If it cannot be converted faithfully to 8-bit RGB, or this build of Pillow lacks its format.
        Exception: Of many kinds, if the file is broken or its format is unknown.
    """

    def __init__(self, content: bytes) -> None:
        _check_build(content)
        with _settings():
            try:
                self._img = Image.open(io.BytesIO(content), formats=_FORMATS)
            except UnidentifiedImageError:
                _refuse_unknown(content)
            if self._img.format == 'TIFF':
                _check_tiff(self._img.tag_v2)  # type: ignore[attr-defined]
            if self._img.format == 'JPEG2000':
                _check_jpeg2000(content, self._img.mode)
        self.size = self._img.size[::-1]
        exif = self._img.info.get('exif')
        if exif is None and self._img.format == 'PNG' and (start := content.rfind(b'eXIf')) > 0:
            # In this PNG, EXIF follows the pixels.
            exif = content[start + 4 : start + 4 + int.from_bytes(content[start - 4 : start], 'big')]
        # Pillow turns TIFF images itself.
        self.orientation = 1 if self._img.format == 'TIFF' else exif_orientation(exif)

    def decode(self, color_type: str, reduction: int) -> np.ndarray:
        """Decode the image. It is not turned yet.

        Args:
            color_type (str): ``'color'`` or ``'grayscale'``.
            reduction (int): 1. Only JPEG can be reduced.

        Returns:
            np.ndarray: (H, W, 3) BGR, or (H, W) for ``'grayscale'``, uint8, without alpha.

        Raises:
            RefusedImageError: If it cannot be converted faithfully to 8-bit RGB.
            Exception: Of many kinds, if the file is broken.
        """
        with _settings():
            self._img.load()
        img, mode = self._img, self._img.mode
        if mode.startswith('I;16') or (mode == 'I' and img.format in ('PNG', 'PPM')):
            pixels = self._from_16_bit()
        elif mode in ('1', 'L', 'LA'):
            pixels = np.array(img.convert('L') if mode != 'L' else img)
        elif mode in _COLOR_MODES:
            # Otherwise Pillow warns about the transparency of a palette.
            img.info.pop('transparency', None)
            pixels = np.array(img.convert('RGB') if mode != 'RGB' else img)
        else:
            raise RefusedImageError(
                f'{img.format} of mode {mode!r} cannot be converted faithfully: save it as 8-bit grey or RGB'
            )
        if pixels.ndim == 2:
            return pixels if color_type == 'grayscale' else cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR)
        if color_type == 'grayscale':
            return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR, dst=pixels)

    def _from_16_bit(self) -> np.ndarray:
        """Return the highest 8 bits of 16-bit grey values (12-bit in some TIFFs)."""
        tags = self._img.tag_v2 if self._img.format == 'TIFF' else {}  # type: ignore[attr-defined]
        grey = (np.asarray(self._img) >> (tags.get(258, (16,))[0] - 8)).astype(np.uint8)
        # Pillow inverts 8-bit TIFFs where 0 is white, but not those of 16 bits.
        return 255 - grey if tags.get(262) == 0 else grey
