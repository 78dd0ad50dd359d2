"""Reads annotation files in COCO's format: their categories, and what is wrong with them."""

import codecs
import json
import os
import re
from collections import Counter
from pathlib import Path

from mmengine.fileio import get

# What mmdet reads of each entry of an annotation file in COCO's format.
_COCO_KEYS = dict(
    images={'id', 'file_name', 'width', 'height'},
    annotations={'id', 'image_id', 'category_id', 'bbox', 'area'},
    categories={'id', 'name'},
)


def categories_of(path: str, backend_args: dict | None) -> dict[int, str] | None:
    """The names of the categories of an annotation file by id, in the order of the file; None if it has none.

    The list is cut out of the file, as reading the whole of a large file takes long.
    """
    content = Path(path).read_bytes() if os.path.isfile(path) else get(path, backend_args)
    for match in reversed(list(re.finditer(rb'"categories"\s*:\s*(?=\[)', content))):
        end = content.find(b']', match.end())
        while end >= 0:
            try:
                found = json.loads(content[match.end() : end + 1])
            except ValueError:
                end = content.find(b']', end + 1)
                continue
            if found and all(isinstance(entry, dict) and {'id', 'name'} <= entry.keys() for entry in found):
                return {entry['id']: entry['name'] for entry in found}
            break
    return None


def annotation_fault(path: str, key: str) -> str | None:
    """The first fault of an annotation file in COCO's format, None if it has none or is of another format."""
    if not path.endswith('.json') or not os.path.isfile(path):
        return None
    where = f'{key}.ann_file: {path}'
    text = Path(path).read_bytes()
    if text.startswith(codecs.BOM_UTF8):
        return f'{where} begins with a byte order mark, which readers of JSON refuse: save it as UTF-8 without BOM'
    try:
        content = json.loads(text)
    except ValueError as error:
        return f'{where} is no JSON file: {error}'
    if not isinstance(content, dict):
        return f"{where} has a {type(content).__name__}, but COCO's format is a dict of images, annotations, categories"
    if missing := [name for name in _COCO_KEYS if not isinstance(content.get(name), list)]:
        return f"{where} has no list {' and no list '.join(missing)}: it is not in COCO's format"
    for name, needed in _COCO_KEYS.items():
        faulty = [entry for entry in content[name] if not isinstance(entry, dict) or not needed <= entry.keys()]
        if faulty:
            first = faulty[0] if isinstance(faulty[0], dict) else {}
            lacks = sorted(needed - first.keys())
            return (
                f'{where}: {len(faulty)} of {len(content[name])} {name} lack {", ".join(lacks)}, first that of '
                f'id={first.get("id")}: write it into the file'
            )
    return _doubled_ids(content, where)


def _doubled_ids(content: dict, where: str) -> str | None:
    for name in _COCO_KEYS:
        twice = [number for number, count in Counter(entry['id'] for entry in content[name]).items() if count > 1]
        if twice:
            return f'{where}: {len(twice)} ids of {name} are doubled, first id={twice[0]}: each needs its own'
    known = {entry['id'] for entry in content['images']}
    strays = [entry['id'] for entry in content['annotations'] if entry['image_id'] not in known]
    if strays:
        return f'{where}: {len(strays)} annotations are of pictures that images does not list, first id={strays[0]}'
    return None
