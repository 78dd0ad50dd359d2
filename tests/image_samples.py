"""A small image file of every kind that people have, made in memory, with the pixels that it is to be read as."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from image_files import bmp16, encode, exif_behind_the_pixels, oriented, tiff, ycck
from PIL import Image, features

_Y, _X = np.mgrid[:24, :40]
RGB = np.stack([_X * 6, _Y * 10, (_X + _Y) * 4], -1).astype(np.uint8)
GREY = RGB[..., 0]
ALPHA = (255 - _Y * 10).astype(np.uint8)
#: 5000 of 65535 is 19 of 255.
DEEP = np.tile(np.array([0, 255, 256, 257, 5000, 32767, 32768, 65279, 65535], np.uint16), (4, 1))
DEEP_RGB = np.stack([DEEP, DEEP // 2, DEEP // 3], -1)
PICTURE = Image.fromarray(RGB)
_NEXT = Image.fromarray(RGB[::-1])

_NO_RANGE = 'black and white are not known'
_DEEP_TIFF = 'OpenCV rounds, ours takes the high byte as for PNG'


@dataclass
class Sample:
    """A file.

    Attributes:
        name: Its kind.
        content: Its bytes.
        pixels: What it is to be read as, (H, W, 3) uint8, RGB; None if it is to be refused.
        note: Why the pixels are not those of mmcv's loader, where they are not.
        tolerance: Largest error, of 255, of a lossy kind.
        feature: What Pillow needs for it, as ``PIL.features`` names it.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None
    note: str = ''
    tolerance: int = 0
    feature: str = ''

    @property
    def available(self) -> bool:
        """Whether this build of Pillow reads it."""
        return not self.feature or features.check(self.feature)


def _three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


def _png() -> Iterator[Sample]:
    half = RGB[..., 1] >= 128
    palette = PICTURE.quantize(16)
    yield Sample('PNG, 1 bit', encode(Image.fromarray(half), 'PNG'), _three(half * np.uint8(255)))
    yield Sample('PNG, 8-bit grey', encode(GREY, 'PNG'), _three(GREY))
    yield Sample('PNG, 8-bit colour', encode(RGB, 'PNG'), RGB)
    yield Sample('PNG, 16-bit grey', encode(DEEP, 'PNG'), _three((DEEP >> 8).astype(np.uint8)))
    deep = (DEEP_RGB >> 8).astype(np.uint8)
    yield Sample('PNG, 16-bit colour', cv2.imencode('.png', DEEP_RGB[..., ::-1])[1].tobytes(), deep)
    deep_alpha = np.dstack([DEEP_RGB[..., ::-1], DEEP[:, ::-1]])
    yield Sample('PNG, 16-bit colour and alpha', cv2.imencode('.png', deep_alpha)[1].tobytes(), deep)
    indexed = np.array(palette.convert('RGB'))
    yield Sample('PNG, palette', encode(palette, 'PNG'), indexed)
    yield Sample('PNG, palette with transparency', encode(palette, 'PNG', transparency=3), indexed)
    yield Sample(
        'PNG, palette with transparency', encode(palette, 'PNG', transparency=bytes(range(0, 160, 10))), indexed
    )
    yield Sample('PNG, one transparent colour', encode(RGB, 'PNG', transparency=(0, 0, 0)), RGB)
    yield Sample('PNG, colour and alpha', encode(np.dstack([RGB, ALPHA]), 'PNG'), RGB)
    yield Sample('PNG, grey and alpha', encode(np.dstack([GREY, ALPHA]), 'PNG'), _three(GREY))
    yield Sample('PNG, animated', encode(RGB, 'PNG', save_all=True, append_images=[_NEXT]), RGB)
    for orientation in range(1, 9):
        yield Sample('PNG, EXIF orientation', oriented(RGB, 'PNG', orientation), RGB)
    yield Sample('PNG, EXIF orientation', exif_behind_the_pixels(oriented(RGB, 'PNG', 6)), RGB)


def _jpeg() -> Iterator[Sample]:
    plain = encode(RGB, 'JPEG', quality=98)
    yield Sample('JPEG', plain, RGB, tolerance=16)
    yield Sample('JPEG, bytes behind its end', plain + b'appended by a camera', RGB, tolerance=16)
    # Pillow leaves a mark in an image that it saves so.
    several = encode(RGB, 'MPO', quality=98, save_all=True, append_images=[_NEXT.copy()])
    yield Sample('JPEG, several images (MPO)', several, RGB, tolerance=16)
    yield Sample('JPEG, full chroma', encode(RGB, 'JPEG', quality=98, subsampling=0), RGB, tolerance=6)
    yield Sample('JPEG, progressive', encode(RGB, 'JPEG', quality=98, progressive=True), RGB, tolerance=16)
    yield Sample('JPEG, grey', encode(GREY, 'JPEG', quality=98), _three(GREY), tolerance=4)
    yield Sample('JPEG, RGB', encode(RGB, 'JPEG', quality=98, keep_rgb=True), RGB, tolerance=6)
    yield Sample('JPEG, CMYK', encode(PICTURE.convert('CMYK'), 'JPEG', quality=98), RGB, tolerance=6)
    yield Sample('JPEG, YCCK', ycck(RGB), RGB, tolerance=8)
    for orientation in range(1, 9):
        yield Sample('JPEG, EXIF orientation', oriented(RGB, 'JPEG', orientation, quality=98), RGB, tolerance=16)


def _tiff() -> Iterator[Sample]:
    half = RGB[..., 1] >= 128
    deep_grey = _three((DEEP >> 8).astype(np.uint8))
    twelve = np.array([[0, 16, 2048, 4095]] * 2, np.uint16)
    packed = np.packbits(
        np.unpackbits(twelve.astype('>u2').view(np.uint8), axis=1).reshape(2, 4, 16)[..., 4:], axis=None
    )
    unread = 'OpenCV does not read it'
    yield Sample('TIFF, 1 bit', encode(Image.fromarray(half), 'TIFF'), _three(half * np.uint8(255)))
    yield Sample('TIFF, 8-bit grey', encode(GREY, 'TIFF'), _three(GREY))
    yield Sample('TIFF, 8-bit grey, white is 0', tiff(255 - GREY, 0), _three(GREY))
    yield Sample(
        'TIFF, 12-bit grey', tiff(packed.reshape(2, -1), 1, bits=12), _three((twelve >> 4).astype(np.uint8)), unread
    )
    yield Sample('TIFF, 16-bit grey', encode(DEEP, 'TIFF'), deep_grey)
    yield Sample('TIFF, 16-bit grey', tiff(DEEP.astype('>u2'), 1), deep_grey)
    yield Sample('TIFF, 16-bit grey, white is 0', tiff(65535 - DEEP, 0), deep_grey)
    yield Sample('TIFF, 16-bit colour', tiff(DEEP_RGB, 2), (DEEP_RGB >> 8).astype(np.uint8), _DEEP_TIFF)
    apart = np.ascontiguousarray(RGB.transpose(2, 0, 1))
    yield Sample('TIFF, 8-bit colour, channels apart', tiff(apart, 2, planar=2), RGB)
    deep_apart = np.ascontiguousarray(DEEP_RGB.transpose(2, 0, 1))
    yield Sample(
        'TIFF, 16-bit colour, channels apart', tiff(deep_apart, 2, planar=2), None, 'Pillow mixes the channels up'
    )
    premultiplied = 'OpenCV multiplies the colours with alpha'
    yield Sample('TIFF, colour and alpha', tiff(np.dstack([RGB, ALPHA]), 2), RGB, premultiplied)
    faint = (128 + ALPHA // 2).astype(np.uint8)
    multiplied = (RGB * (faint[..., None] / 255)).round().astype(np.uint8)
    content = tiff(np.dstack([multiplied, faint]), 2, extra_kind=1)
    yield Sample('TIFF, colour times alpha', content, RGB, 'OpenCV leaves it multiplied', 2)
    palette = PICTURE.quantize(16)
    yield Sample('TIFF, palette', encode(palette, 'TIFF'), np.array(palette.convert('RGB')))
    yield Sample('TIFF, CMYK', encode(PICTURE.convert('CMYK'), 'TIFF'), RGB)
    yield Sample(
        'TIFF, LAB',
        encode(PICTURE.convert('LAB'), 'TIFF'),
        None,
        'OpenCV takes the wrong colours',
        feature='littlecms2',
    )
    yield Sample('TIFF, five channels', tiff(np.dstack([RGB, RGB[..., :2]]), 2), None)
    grey_alpha = tiff(np.dstack([DEEP, DEEP[:, ::-1]]), 1)
    yield Sample('TIFF, 16-bit grey and alpha', grey_alpha, None, 'Pillow does not know it')
    for compression in ('tiff_lzw', 'tiff_adobe_deflate', 'packbits'):
        yield Sample('TIFF, compressed', encode(RGB, 'TIFF', compression=compression), RGB, feature='libtiff')
    jpeg = encode(RGB, 'TIFF', compression='jpeg', quality=98)
    yield Sample('TIFF, compressed as JPEG', jpeg, RGB, tolerance=16, feature='libtiff')
    yield Sample('TIFF, several pages', encode(RGB, 'TIFF', save_all=True, append_images=[_NEXT]), RGB)
    yield Sample('TIFF above 4 GB (BigTIFF)', encode(RGB, 'TIFF', big_tiff=True), RGB)
    for orientation in range(1, 9):
        yield Sample('TIFF, orientation', oriented(RGB, 'TIFF', orientation), RGB)
    yield Sample('TIFF, 8-bit signed', tiff(GREY.view(np.int8), 1, kind=2), None, _NO_RANGE)
    yield Sample('TIFF, 16-bit signed', tiff(DEEP.view(np.int16), 1, kind=2), None, _NO_RANGE)
    yield Sample('TIFF, 32-bit integer', tiff(DEEP.astype(np.uint32), 1), None, _NO_RANGE)
    yield Sample('TIFF, 32-bit integer', tiff(DEEP.astype(np.int32), 1, kind=2), None, _NO_RANGE)
    for dtype in (np.float16, np.float32, np.float64):
        yield Sample('TIFF, float', tiff((DEEP / 65535).astype(dtype), 1, kind=3), None, _NO_RANGE)
    yield Sample('TIFF, float', tiff((DEEP_RGB / 65535).astype(np.float32), 2, kind=3), None, _NO_RANGE)


def _others() -> Iterator[Sample]:
    alpha = np.dstack([RGB, ALPHA])
    not_turned = 'OpenCV does not turn it'
    yield Sample('WebP, lossy', encode(RGB, 'WEBP', quality=95), RGB, tolerance=24, feature='webp')
    yield Sample('WebP, lossless', encode(RGB, 'WEBP', lossless=True), RGB, feature='webp')
    yield Sample('WebP, alpha', encode(alpha, 'WEBP', lossless=True, exact=True), RGB, feature='webp')
    animated = encode(RGB, 'WEBP', save_all=True, append_images=[_NEXT], lossless=True)
    yield Sample('WebP, animated', animated, RGB, feature='webp')
    for orientation in range(2, 9):
        content = oriented(RGB, 'WEBP', orientation, lossless=True)
        yield Sample('WebP, EXIF orientation', content, RGB, not_turned, feature='webp')
    palette = PICTURE.quantize(64)
    indexed = np.array(palette.convert('RGB'))
    shown = 'OpenCV takes another colour for transparent pixels'
    yield Sample('GIF', encode(palette, 'GIF'), indexed)
    yield Sample('GIF, transparency', encode(palette, 'GIF', transparency=3), indexed, shown)
    yield Sample('GIF, animated', encode(palette, 'GIF', save_all=True, append_images=[_NEXT.quantize(64)]), indexed)
    half = RGB[..., 1] >= 128
    five = np.array([[31, 31 << 5, 31 << 10, 16 | 16 << 5 | 16 << 10]] * 2)
    white = np.array([[[0, 0, 255], [0, 255, 0], [255, 0, 0], [131, 131, 131]]] * 2, np.uint8)
    yield Sample('BMP', encode(RGB, 'BMP'), RGB)
    yield Sample('BMP, 1 bit', encode(Image.fromarray(half), 'BMP'), _three(half * np.uint8(255)))
    yield Sample('BMP, palette', encode(palette, 'BMP'), indexed)
    yield Sample('BMP, 16 bits a pixel', bmp16(five), white, 'OpenCV makes 248 of the largest value, ours 255', 1)
    yield Sample('BMP, 32 bits a pixel', encode(alpha, 'BMP'), RGB)
    sharp = dict(quality=100, subsampling='4:4:4')
    yield Sample('AVIF', encode(RGB, 'AVIF', **sharp), RGB, tolerance=4, feature='avif')
    yield Sample('AVIF, alpha', encode(alpha, 'AVIF', **sharp), RGB, tolerance=4, feature='avif')
    for orientation in range(2, 9):
        content = oriented(RGB, 'AVIF', orientation, **sharp)
        yield Sample('AVIF, orientation', content, RGB, not_turned, tolerance=4, feature='avif')
    yield Sample('JPEG 2000', encode(RGB, 'JPEG2000'), RGB, tolerance=1, feature='jpg_2000')
    yield Sample(
        'JPEG 2000, no header (.j2k)', encode(RGB, 'JPEG2000', no_jp2=True), RGB, tolerance=1, feature='jpg_2000'
    )
    yield Sample('JPEG 2000, alpha', encode(alpha, 'JPEG2000'), RGB, tolerance=1, feature='jpg_2000')
    deep = _three((DEEP >> 8).astype(np.uint8))
    yield Sample('JPEG 2000, 16-bit grey', encode(DEEP, 'JPEG2000'), deep, tolerance=1, feature='jpg_2000')
    wide = np.tile(DEEP_RGB, (16, 8, 1))
    wraps = 'Pillow makes white black'
    content = cv2.imencode('.jp2', wide)[1].tobytes()
    yield Sample('JPEG 2000, 16-bit colour', content, None, wraps, feature='jpg_2000')
    yield Sample('PPM', encode(RGB, 'PPM'), RGB)
    yield Sample('PGM', encode(GREY, 'PPM'), _three(GREY))
    yield Sample('PGM, text', b'P2 3 1 255\n1 2 200\n', _three(np.array([[1, 2, 200]], np.uint8)))
    yield Sample('PBM', encode(Image.fromarray(half), 'PPM'), _three(half * np.uint8(255)))
    yield Sample('PGM, 16 bit', b'P5 9 4 65535\n' + DEEP.astype('>u2').tobytes(), deep)
    deep = (DEEP_RGB >> 8).astype(np.uint8)
    content = b'P6 9 4 65535\n' + DEEP_RGB.astype('>u2').tobytes()
    yield Sample('PPM, 16 bit', content, deep, 'OpenCV takes the high byte, Pillow rounds', 1)
    content = b'P6 9 4 1023\n' + (DEEP_RGB >> 6).astype('>u2').tobytes()
    yield Sample('PPM, 10 bit', content, deep, 'ours makes the maximum white', 1)
    small = np.array([[0, 50, 100]], np.uint8)
    scaled = _three(np.array([[0, 128, 255]], np.uint8))
    yield Sample('PGM, maximum of 100', b'P5 3 1 100\n' + small.tobytes(), scaled, 'ours makes the maximum white', 1)
    yield Sample('PFM (float)', b'Pf 3 1 -1.0\n' + small.astype('<f4').tobytes(), None, _NO_RANGE)


def _sizes() -> Iterator[Sample]:
    for width, height in ((1, 1), (1, 500), (500, 1)):
        img = np.array(PICTURE.resize((width, height)))
        for kind, options in (('PNG', {}), ('BMP', {}), ('TIFF', {}), ('PPM', {}), ('WEBP', dict(lossless=True))):
            feature = 'webp' if kind == 'WEBP' else ''
            yield Sample('sides of one pixel', encode(img, kind, **options), img, feature=feature)
        yield Sample('sides of one pixel', encode(img, 'JPEG', quality=98), img, tolerance=16)
    long = np.tile(GREY[:1], (1, 30_000))[:, :1_100_000]
    limit = 'OpenCV takes sides up to 1,048,576'
    yield Sample('PNG, 1,100,000 x 1', encode(np.ascontiguousarray(long), 'PNG'), _three(long), limit)
    yield Sample(
        'JPEG, 65,500 x 1',
        encode(np.ascontiguousarray(long[:, :65_500]), 'JPEG', quality=98),
        _three(long[:, :65_500]),
        tolerance=16,
    )


def samples() -> list[Sample]:
    """A file of every kind; several of one name differ in what the name does not tell."""
    return [sample for part in (_png, _jpeg, _tiff, _others, _sizes) for sample in part()]
