"""Files of images of rare kinds, which no library at hand writes."""

import io
import struct

import numpy as np
from PIL import Image


def encode(img: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    """A file of an image, as Pillow writes it."""
    stream = io.BytesIO()
    (img if isinstance(img, Image.Image) else Image.fromarray(img)).save(stream, kind, **options)
    return stream.getvalue()


def tiff(
    samples: np.ndarray, photometric: int, kind: int = 1, planar: int = 1, bits: int | None = None, extra_kind: int = 2
) -> bytes:
    """An uncompressed TIFF of any numbers.

    Args:
        samples: (H, W) or (H, W, C); (C, H, W) if planar. Or (H, bytes a row), with ``bits``.
        photometric: 0 white is zero, 1 black is zero, 2 RGB.
        kind: Of the numbers: 1 unsigned, 2 signed, 3 float.
        planar: 1 channels of a pixel together, 2 apart.
        bits: Of a number, where they are packed.
        extra_kind: Of the channels beyond grey or RGB: 1 alpha that the colours are multiplied with, 2 alpha.
    """
    order = 'MM' if samples.dtype.byteorder == '>' else 'II'
    end = '>' if order == 'MM' else '<'
    data = samples.tobytes()
    if samples.ndim == 2:
        (height, width), channels = samples.shape, 1
    else:
        height, width, channels = samples.shape if planar == 1 else (*samples.shape[1:], samples.shape[0])
    if bits is not None:
        width = width * 8 // bits
    bits = bits or samples.dtype.itemsize * 8
    behind = 8 + len(data)
    extra = b''

    def short(tag: int, *values: int) -> bytes:
        nonlocal extra
        packed = struct.pack(f'{end}{len(values)}H', *values)
        if len(packed) > 4:
            packed, extra = struct.pack(f'{end}I', behind + len(extra)), extra + packed
        return struct.pack(f'{end}HHI', tag, 3, len(values)) + packed.ljust(4, b'\0')

    def long(tag: int, *values: int) -> bytes:
        nonlocal extra
        packed = struct.pack(f'{end}{len(values)}I', *values)
        if len(packed) > 4:
            packed, extra = struct.pack(f'{end}I', behind + len(extra)), extra + packed
        return struct.pack(f'{end}HHI', tag, 4, len(values)) + packed

    strips = channels if planar == 2 else 1
    size = len(data) // strips
    tags = [short(256, width), short(257, height), short(258, *[bits] * channels), short(259, 1)]
    tags += [short(262, photometric), long(273, *range(8, 8 + strips * size, size)), short(277, channels)]
    tags += [short(278, height), long(279, *[size] * strips), short(284, planar)]
    colors = 3 if photometric == 2 else 1
    tags += [short(338, *[extra_kind] * (channels - colors))] if channels > colors else []
    tags += [short(339, *[kind] * channels)]
    start = order.encode() + struct.pack(f'{end}HI', 42, behind + len(extra))
    return start + data + extra + struct.pack(f'{end}H', len(tags)) + b''.join(tags) + bytes(4)


def turned(img: np.ndarray, orientation: int) -> np.ndarray:
    """An image that EXIF's ``orientation`` turns into the given one, by the definition of the tag."""
    # What the first row and the first column of the stored image are.
    rows, columns = {
        1: ('top', 'left'), 2: ('top', 'right'), 3: ('bottom', 'right'), 4: ('bottom', 'left'),
        5: ('left', 'top'), 6: ('right', 'top'), 7: ('right', 'bottom'), 8: ('left', 'bottom'),
    }[orientation]  # fmt: skip
    if rows in ('left', 'right'):
        img = img.swapaxes(0, 1)
    return img[:: -1 if rows in ('bottom', 'right') else 1, :: -1 if columns in ('right', 'bottom') else 1]


def oriented(rgb: np.ndarray, kind: str, orientation: int, **options) -> bytes:
    """A file whose EXIF data say how it is to be turned into the given image."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(np.ascontiguousarray(turned(rgb, orientation)), kind, exif=exif, **options)


def exif_behind_the_pixels(png: bytes) -> bytes:
    """A PNG with its EXIF data at the end."""
    start = png.index(b'eXIf') - 4
    end = start + 12 + int.from_bytes(png[start : start + 4], 'big')
    last = png.index(b'IEND') - 4
    return png[:start] + png[end:last] + png[start:end] + png[last:]


def ycck(rgb: np.ndarray) -> bytes:
    """A JPEG of the four channels that Photoshop writes: luma and chroma of the inks, and black."""
    channels = [255 - np.array(c) for c in Image.fromarray(255 - rgb).convert('YCbCr').split()]
    img = Image.merge('CMYK', [Image.fromarray(c) for c in [*channels, np.zeros_like(channels[0])]])
    content = bytearray(encode(img, 'JPEG', quality=98))
    content[content.index(b'Adobe') + 11] = 2
    return bytes(content)


def bmp16(values: np.ndarray) -> bytes:
    """A BMP of 16 bits a pixel, five a channel; the width is even."""
    height, width = values.shape
    header = struct.pack('<IiiHHIIiiII', 40, width, -height, 1, 16, 0, values.nbytes, 0, 0, 0, 0)
    return b'BM' + struct.pack('<IHHI', 54 + values.nbytes, 0, 0, 54) + header + values.astype('<u2').tobytes()
