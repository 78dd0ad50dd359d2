"""Faults of masks for segmentation."""

import numpy as np
import pytest
from PIL import Image

from mmmap.datasets.mask_faults import MaskFolder


@pytest.fixture
def pairs(tmp_path):
    """Three pictures and their masks, with the labels 0, 1 and 255."""
    for name in ('images', 'masks'):
        (tmp_path / name / 'deep').mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ('a', 'b', 'deep/c'):
        Image.fromarray(rng.integers(0, 255, (16, 20, 3), dtype='uint8')).save(tmp_path / f'images/{name}.jpg')
        labels = rng.integers(0, 2, (16, 20), dtype='uint8')
        labels[0] = 255
        Image.fromarray(labels).save(tmp_path / f'masks/{name}.png')
    return tmp_path


def found(pairs, **options):
    options = dict(num_classes=2) | options
    return [str(fault) for fault in MaskFolder(pairs / 'images', pairs / 'masks', **options).faults()]


def test_no_fault(pairs):
    assert found(pairs) == []
    folder = MaskFolder(pairs / 'images', pairs / 'masks')
    assert list(folder.faults()) == [] and folder.labels[255] == 60 and folder.labels.total() == 3 * 320


def test_a_palette_is_no_fault(pairs):
    mask = Image.open(pairs / 'masks/a.png').convert('L')
    indexed = Image.frombytes('P', mask.size, mask.tobytes())
    indexed.putpalette([0, 0, 0, 200, 0, 0])
    indexed.save(pairs / 'masks/a.png')
    assert found(pairs) == []


def test_labels_that_are_no_class_have_counts_and_the_first_file(pairs):
    for name in ('b', 'deep/c'):
        labels = np.array(Image.open(pairs / f'masks/{name}.png'))
        labels[1, :3] = 9
        Image.fromarray(labels).save(pairs / f'masks/{name}.png')
    (fault,) = found(pairs)
    assert fault.startswith(f'{pairs}/masks/b.png: has the label 9, as 2 masks in all, 6 pixels: classes are 0 to 1')
    assert found(pairs, ignored=(9, 255)) == []


def test_labels_from_one_on(pairs):
    assert len(found(pairs, num_classes=1)) == 1
    assert found(pairs, num_classes=1, reduce_zero_label=True) == []


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: Image.open(path).convert('RGB').save(path), 'b.png: is a picture of 3 channels (RGB)'),
        (
            lambda path: Image.open(path).resize((8, 8), Image.Resampling.NEAREST).save(path),
            'has 20 x 16 pixels (width x height), its mask 8 x 8',
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), 'b.png: cannot be read'),
        (lambda path: path.write_bytes(b'text'), 'b.png: cannot be read: not an image'),
        (lambda path: path.unlink(), 'b.jpg: has no mask'),
        (lambda path: path.rename(path.with_stem('other')), 'other.png: is a mask without a picture'),
    ],
)
def test_files(pairs, damage, message):
    damage(pairs / 'masks/b.png')
    faults = found(pairs)
    assert len(faults) == (2 if 'without' in message else 1) and any(message in fault for fault in faults)


def test_a_truncated_picture_and_folders_without_files(pairs):
    path = pairs / 'images/a.jpg'
    path.write_bytes(path.read_bytes()[:-60])
    (fault,) = found(pairs)
    assert 'a.jpg: cannot be read' in fault
    assert any('has no files that end in' in fault for fault in found(pairs, mask_suffix='_label.png'))
