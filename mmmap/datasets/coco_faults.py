"""Finds what is wrong with annotations in COCO's format."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .annotation_faults import Fault, image_fault, is_number, is_whole, size_fault

_LISTS = ('images', 'annotations', 'categories')
# A box may end this far beyond its picture, in pixels: tools round in many ways.
_TOLERANCE = 1.0


def coco_faults(path: str | Path, folder: str | Path | None = None) -> Iterator[Fault]:
    """Find the faults of a file of annotations in COCO's format. Nothing is changed.

    Args:
        path (str | Path): The file.
        folder (str | Path, optional): The folder of its pictures, which are then read. Defaults to None.

    Yields:
        Fault: Each fault, with the id of its entry.
    """
    path = str(path)
    content, faults = _read(path)
    for text in faults:
        yield Fault(path, '', text)
    if content is None:
        return
    names: dict[int, Any] = {}
    images: dict[int, Any] = {}
    for index, entry in enumerate(content['categories']):
        item = _item('category', index, entry)
        for text in _entry_faults(entry, names) or _category_faults(entry, names):
            yield Fault(path, item, text)
        if isinstance(entry, dict) and is_whole(entry.get('id')):
            names.setdefault(entry['id'], entry.get('name'))
    files: set[str] = set()
    for index, entry in enumerate(content['images']):
        item = _item('image', index, entry)
        for text in _entry_faults(entry, images) or _image_faults(entry, files, folder):
            yield Fault(path, item, text)
        if isinstance(entry, dict) and is_whole(entry.get('id')):
            images.setdefault(entry['id'], entry)
    annotations = content['annotations']
    with_shape = sum(isinstance(entry, dict) and 'segmentation' in entry for entry in annotations)
    # Data with boxes alone is as good as data with outlines: only a mixture is a fault.
    needs_shape = 0 < with_shape < len(annotations)
    known: dict[int, Any] = {}
    for index, entry in enumerate(annotations):
        item = _item('annotation', index, entry)
        for text in _entry_faults(entry, known) or _annotation_faults(entry, images, names, needs_shape):
            yield Fault(path, item, text)
        if isinstance(entry, dict) and is_whole(entry.get('id')):
            known.setdefault(entry['id'], entry)


def _read(path: str) -> tuple[dict | None, list[str]]:
    """The content of a file, None if it is of no use, and what is wrong with the whole of it."""
    faults = []
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        return None, [f'cannot be read ({error.strerror or error})']
    if raw.startswith(b'\xef\xbb\xbf'):
        faults.append("starts with a byte order mark, which mmdet cannot read: save it as 'UTF-8 without BOM'")
    try:
        content = json.loads(raw.decode('utf-8-sig'))
    except UnicodeDecodeError as error:
        return None, [f'is not UTF-8 (byte {error.start}): save it as UTF-8']
    except ValueError as error:
        return None, [*faults, f'is no JSON, or cut off: {error}']
    if not isinstance(content, dict):
        return None, [*faults, f"holds a {type(content).__name__}; COCO's format is an object with {', '.join(_LISTS)}"]
    missing = [name for name in _LISTS if not isinstance(content.get(name), list)]
    if missing:
        return None, [*faults, f"has no list {' and no list '.join(missing)}: it is not COCO's format"]
    faults += [f'its list {name} is empty' for name in _LISTS if not content[name]]
    return content, faults


def _item(kind: str, index: int, entry: Any) -> str:
    name = entry.get('id') if isinstance(entry, dict) else None
    number = f'{kind} number {index + 1}' if name is None else f'{kind} {name!r}'
    file = entry.get('file_name') if kind == 'image' and isinstance(entry, dict) else None
    picture = entry.get('image_id') if kind == 'annotation' and isinstance(entry, dict) else None
    return number + (f' ({file})' if file else f' of image {picture!r}' if picture is not None else '')


def _entry_faults(entry: Any, known: dict) -> list[str]:
    """What is wrong with an entry or its id. Nothing more can be said of it then."""
    if not isinstance(entry, dict):
        return [f'is {entry!r:.40} and no object']
    if 'id' not in entry:
        return ['has no id']
    if not is_whole(entry['id']):
        return [f'id is {entry["id"]!r:.40} and no whole number']
    return ['has the id of an entry before it'] if entry['id'] in known else []


def _category_faults(entry: dict, names: dict) -> Iterator[str]:
    name = entry.get('name')
    if not isinstance(name, str) or not name:
        yield f'name is {name!r:.40} and no text'
    elif name in names.values():
        yield f'has the name {name!r} of a category before it'


def _image_faults(entry: dict, files: set[str], folder: str | Path | None) -> Iterator[str]:
    sides: list[Any] = [entry.get(key) for key in ('height', 'width')]
    for key, side in zip(('height', 'width'), sides, strict=True):
        if not is_whole(side) or side <= 0:
            yield f'{key} is {side!r:.40} and no positive whole number' if key in entry else f'has no {key}'
    file = entry.get('file_name')
    if not isinstance(file, str) or not file:
        yield f'file_name is {file!r:.40} and no text'
        return
    if file in files:
        yield f'has the file {file} of an image before it'
    files.add(file)
    if folder is None:
        return
    path = Path(folder, file)
    shape, stored, fault = image_fault(path)
    if shape is None or stored is None:
        yield f'{path}: {fault}'
    elif all(is_whole(side) for side in sides):
        text = size_fault(shape, stored, (sides[0], sides[1]), 'the annotations say')
        if text:
            yield f'{path} {text}'


def _annotation_faults(entry: dict, images: dict, names: dict, needs_shape: bool) -> Iterator[str]:
    for key, known, of in (('image_id', images, 'images'), ('category_id', names, 'categories')):
        if key not in entry:
            yield f'has no {key}'
        elif not is_whole(entry[key]):
            yield f'{key} is {entry[key]!r:.40} and no whole number'
        elif entry[key] not in known:
            yield f'{key} is {entry[key]}, which {of} does not have'
    image = images.get(entry.get('image_id')) if is_whole(entry.get('image_id')) else None
    sides = [image.get(key) for key in ('height', 'width')] if image else [None]
    size = (sides[0], sides[1]) if all(is_number(side) for side in sides) else None
    yield from _box_faults(entry, size)
    if 'area' not in entry:
        yield 'has no area: write the area of the object, or width times height of the box'
    elif not is_number(entry['area']) or entry['area'] <= 0:
        yield f'area is {entry["area"]!r:.40} and no positive number'
    if 'iscrowd' not in entry:
        yield 'has no iscrowd, without which it cannot be evaluated: write 0'
    elif entry['iscrowd'] not in (0, 1) or isinstance(entry['iscrowd'], float):
        yield f'iscrowd is {entry["iscrowd"]!r:.40}; 0 is an object, 1 a crowd'
    if 'segmentation' in entry:
        yield from _shape_faults(entry['segmentation'], size)
    elif needs_shape:
        yield 'has no segmentation, and others have'


def _box_faults(entry: dict, size: tuple | None) -> Iterator[str]:
    box = entry.get('bbox')
    if 'bbox' not in entry:
        yield 'has no bbox'
    elif not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        yield f'bbox is {box!r:.60} and not four numbers (left, top, width, height)'
    elif min(box[2:]) <= 0:
        yield f'bbox {box} has no area (left, top, width, height): it is left out of a training without a word'
    elif size is not None:
        left, top, width, height = box
        if left >= size[1] or top >= size[0] or left + width <= 0 or top + height <= 0:
            yield f'bbox {box} lies outside of its picture of {size[1]} x {size[0]} pixels'
        elif max(-left, -top, left + width - size[1], top + height - size[0]) > _TOLERANCE:
            yield f'bbox {box} (left, top, width, height) ends beyond its picture of {size[1]} x {size[0]} pixels'


def _shape_faults(shape: Any, size: tuple | None) -> Iterator[str]:
    if isinstance(shape, list):
        if not shape:
            yield 'segmentation is [], an object without an outline: draw it, or leave segmentation out of all'
        for number, polygon in enumerate(shape, 1):
            where = f'polygon {number} of its segmentation'
            if not isinstance(polygon, list) or not all(map(is_number, polygon)):
                yield f'{where} is {polygon!r:.40} and no list of numbers (x, y, x, y, ...)'
            elif len(polygon) % 2:
                yield f'{where} has {len(polygon)} numbers, an odd count'
            elif len(polygon) < 6:
                yield f'{where} has {len(polygon) // 2} points; an area has 3 or more'
            elif size is not None:
                right, bottom = max(polygon[::2]) - size[1], max(polygon[1::2]) - size[0]
                if (beyond := max(right, bottom, -min(polygon))) > _TOLERANCE:
                    yield f'{where} leaves its picture of {size[1]} x {size[0]} pixels by {beyond:.4g} pixels'
    elif isinstance(shape, dict):
        yield from _rle_faults(shape, size)
    else:
        yield f'segmentation is {shape!r:.40}, neither polygons nor run lengths'


def _rle_faults(shape: dict, size: tuple | None) -> Iterator[str]:
    own, counts = shape.get('size'), shape.get('counts')
    if not isinstance(own, list) or len(own) != 2 or not all(map(is_whole, own)):
        yield f'size of its run lengths is {own!r:.40} and not [height, width]'
        return
    if size is not None and tuple(own) != size:
        yield f'its run lengths have the size {own} (height, width), its picture {list(size)}'
    if isinstance(counts, str):
        counts = _run_lengths(counts)
    if not isinstance(counts, list) or not all(is_whole(count) and count >= 0 for count in counts):
        yield f'counts of its run lengths, {shape.get("counts")!r:.40}, cannot be decoded'
    elif sum(counts) != own[0] * own[1]:
        yield f'its run lengths are {sum(counts)} pixels in all, its size is {own[0]} x {own[1]}'


def _run_lengths(text: str) -> list[int] | None:
    """The run lengths in COCO's compact text; None if it is none.

    A character holds five bits of a number, the lowest first, and whether more follow. From the fourth on, numbers are
    differences to the last but one.
    """
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            return None
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        # The highest bit is the sign.
        number -= (bits & 16) << (shift - 4)
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    return None if shift else counts
