"""What is wrong with a file of annotations or a picture, and the first look at a picture that tells."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .image_reader import MAX_PIXELS, EncodedImage

# Modes of Pillow with one number a pixel. That of a palette is its index, which is the label in many sets.
_ONE_NUMBER = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'F')

#: Height and width in pixels.
Size = tuple[int, int]


@dataclass(frozen=True)
class Fault:
    """A fault of annotations.

    Attributes:
        file (str): The file that has it.
        item (str): The entry of the file, such as 'annotation 12', or '' for the whole file.
        text (str): What is wrong, and what to do if that is not plain.
    """

    file: str
    item: str
    text: str

    def __str__(self) -> str:
        return f'{self.file}: {self.item + ": " if self.item else ""}{self.text}'


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether a value of a JSON file is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def image_fault(
    path: str | Path, whole: bool = True
) -> tuple[tuple[int, int] | None, tuple[int, int] | None, str | None]:
    """Read a picture.

    Args:
        path (str | Path): The file.
        whole (bool): Whether to decode it, which finds truncated files. Otherwise its header is read.

    Returns:
        tuple: Its size (H, W) after it is turned as EXIF says, its size as it is stored, and what is wrong. The sizes
        are None if something is.
    """
    try:
        with Image.open(path) as opened:
            stored = opened.size[::-1]
            turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
        if whole:
            EncodedImage(Path(path).read_bytes(), MAX_PIXELS).pixels('color')
    except FileNotFoundError:
        return None, None, 'there is no such file'
    # Decoders raise many kinds of errors for broken bytes.
    except Exception as error:
        return None, None, f'cannot be read: {_reason(error)}'
    return (stored[::-1] if turned else stored), stored, None


def size_fault(shape: Size, stored: Size, expected: Size, of: str) -> str | None:
    """Say that a picture has another size (H, W) than expected; None if it has that.

    Args:
        shape (tuple[int, int]): Its size, turned as EXIF says.
        stored (tuple[int, int]): Its size as it is stored.
        expected (tuple[int, int]): What it should be.
        of (str): What says so, for the message.
    """
    if shape == expected:
        return None
    text = f'has {shape[1]} x {shape[0]} pixels (width x height), {of} {expected[1]} x {expected[0]}'
    if stored == expected:
        text += ': EXIF turns the picture, and readers obey it; save it turned and without EXIF'
    return text


def read_labels(path: str | Path, whole: bool = True) -> tuple[np.ndarray | None, Size | None, str | None]:
    """Read a mask.

    Args:
        path (str | Path): The file.
        whole (bool): Whether to decode it. Otherwise its header is read.

    Returns:
        tuple: Its labels (H, W), None if it is not decoded; its size (H, W); what is wrong.
    """
    try:
        with Image.open(path) as opened:
            shape = opened.size[::-1]
            if opened.mode not in _ONE_NUMBER:
                colours = len(opened.getbands())
                return None, shape, f'is a picture of {colours} channels ({opened.mode}); a mask has one label a pixel'
            return (np.array(ImageOps.exif_transpose(opened)) if whole else None), shape, None
    except FileNotFoundError:
        return None, None, 'there is no such file'
    except Exception as error:
        return None, None, f'cannot be read: {_reason(error)}'


def _reason(error: Exception) -> str:
    text = ' '.join(str(error).split())
    return 'not an image' if 'cannot identify' in text else text or type(error).__name__
