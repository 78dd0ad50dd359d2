"""Faults of annotations in COCO's format."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec

from mmmap.datasets.coco_faults import coco_faults

LEFT_HALF = np.asfortranarray(np.repeat([[1, 0]], 5, axis=1).repeat(8, axis=0).astype('uint8'))


def content():
    """A file without a fault: one object in each form."""
    shapes = [
        [[1, 1, 6, 1, 6, 6]],
        dict(size=[8, 10], counts=[8, 40, 32]),
        dict(size=[8, 10], counts=rle_codec.encode(LEFT_HALF)['counts'].decode()),
    ]
    common = dict(image_id=3, category_id=7, bbox=[1, 1, 5, 5], area=12.5, iscrowd=0)
    return dict(
        images=[dict(id=3, file_name='a.png', width=10, height=8)],
        categories=[dict(id=7, name='thing')],
        annotations=[common | dict(id=index, segmentation=shape) for index, shape in enumerate(shapes)],
    )


def found(tmp_path, text, folder=None):
    path = tmp_path / 'own.json'
    path.write_bytes(text if isinstance(text, bytes) else json.dumps(text).encode())
    return [str(fault).removeprefix(f'{path}: ') for fault in coco_faults(path, folder)]


def test_no_fault(tmp_path):
    Image.new('RGB', (10, 8)).save(tmp_path / 'a.png')
    assert found(tmp_path, content(), tmp_path) == []
    boxes_alone = content()
    for entry in boxes_alone['annotations']:
        del entry['segmentation']
    assert found(tmp_path, boxes_alone) == []


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (b'\xef\xbb\xbf' + json.dumps(content()).encode(), 'byte order mark'),
        (json.dumps(content()).encode()[:-9], 'is no JSON, or cut off'),
        ('{"a": "ä"}'.encode('latin-1'), 'is not UTF-8 (byte 7)'),
        (b'[]', 'holds a list'),
        (b'{"images": [], "annotations": {}}', 'has no list annotations and no list categories'),
    ],
)
def test_the_whole_file(tmp_path, text, message):
    (fault,) = found(tmp_path, text)
    assert message in fault


MISSING = object()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(segmentation=[]), 'segmentation is []'),
        (dict(segmentation=[[1, 1, 6, 6]]), 'polygon 1 of its segmentation has 2 points'),
        (dict(segmentation=[[1, 1, 6, 1, 6]]), 'an odd count'),
        (dict(segmentation=[[1, 1, 6, 1, 60, 6]]), 'leaves its picture of 10 x 8 pixels by 50 pixels'),
        (dict(segmentation=[['1', '1', '6', '1', '6', '6']]), 'no list of numbers'),
        (
            dict(segmentation=dict(size=[10, 8], counts=[80])),
            'have the size [10, 8] (height, width), its picture [8, 10]',
        ),
        (dict(segmentation=dict(size=[8, 10], counts=[8, 4])), 'are 12 pixels in all'),
        (dict(segmentation=dict(size=[8, 10], counts='\x01')), 'cannot be decoded'),
        (dict(segmentation=MISSING), 'has no segmentation, and others have'),
        (dict(iscrowd=MISSING), 'has no iscrowd'),
        (dict(iscrowd='0'), "iscrowd is '0'"),
        (dict(area=MISSING), 'has no area'),
        (dict(area=float('nan')), 'area is nan'),
        (dict(bbox=MISSING), 'has no bbox'),
        (dict(bbox=[1, 1, 0, 5]), 'has no area'),
        (dict(bbox=[1, 1, 5, -5]), 'has no area'),
        (dict(bbox=['1', 1, 5, 5]), 'not four numbers'),
        (dict(bbox=[1, 1, 5, float('inf')]), 'not four numbers'),
        (dict(bbox=[10, 1, 5, 5]), 'lies outside of its picture of 10 x 8 pixels'),
        (dict(bbox=[5, 1, 9, 5]), 'ends beyond its picture'),
        (dict(id=1), 'has the id of an entry before it'),
        (dict(id='2'), "id is '2' and no whole number"),
        (dict(id=MISSING), 'has no id'),
        (dict(category_id=8), 'category_id is 8, which categories does not have'),
        (dict(category_id='7'), "category_id is '7' and no whole number"),
        (dict(image_id=4), 'image_id is 4, which images does not have'),
    ],
)
def test_annotations(tmp_path, change, message):
    own = content()
    entry = own['annotations'][2] | change
    own['annotations'][2] = {key: value for key, value in entry.items() if value is not MISSING}
    (fault,) = found(tmp_path, own)
    assert message in fault
    assert fault.startswith('annotation number 3' if change.get('id') is MISSING else f'annotation {entry["id"]!r}')


@pytest.mark.parametrize(
    ('key', 'change', 'message'),
    [
        ('images', dict(id=4), 'has the file a.png of an image before it'),
        ('images', dict(file_name='b.png'), 'has the id of an entry before it'),
        ('images', dict(id=4, file_name='b.png', width='10'), "width is '10' and no positive whole number"),
        ('images', dict(id=4, file_name='b.png', height=0), 'height is 0'),
        ('images', dict(id=4, file_name=None), 'file_name is None'),
        ('categories', dict(id=8), "has the name 'thing' of a category before it"),
        ('categories', dict(name='other'), 'has the id of an entry before it'),
        ('categories', dict(id=8, name=5), 'name is 5 and no text'),
    ],
)
def test_images_and_categories(tmp_path, key, change, message):
    own = content()
    own[key].append(own[key][0] | change)
    (fault,) = found(tmp_path, own)
    assert message in fault


def test_files_of_pictures(tmp_path):
    picture, path = Image.new('RGB', (10, 8)), tmp_path / 'a.png'
    (fault,) = found(tmp_path, content(), tmp_path)
    assert 'a.png: there is no such file' in fault and fault.startswith('image 3 (a.png)')
    picture.resize((8, 10)).save(path)
    (fault,) = found(tmp_path, content(), tmp_path)
    assert 'has 8 x 10 pixels (width x height), the annotations say 10 x 8' in fault and 'EXIF' not in fault
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)
    (fault,) = found(tmp_path, content(), tmp_path)
    assert 'EXIF turns the picture' in fault
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 10, 3), dtype='uint8')).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    (fault,) = found(tmp_path, content(), tmp_path)
    assert 'a.png: cannot be read' in fault
