import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/camvid.py'
COUNTS = {'train': 3, 'val': 2, 'test': 1}


@pytest.fixture
def source(tmp_path):
    """SegNet's folder, with few images of few pixels."""
    root = tmp_path / 'CamVid'
    for split, count in COUNTS.items():
        for folder in (root / split, root / f'{split}annot'):
            folder.mkdir(parents=True)
        for i in range(count):
            rng = np.random.default_rng(i)
            image, labels = rng.integers(0, 255, (6, 8, 3), dtype='uint8'), rng.integers(0, 12, (6, 8), dtype='uint8')
            Image.fromarray(image).save(root / split / f'0001TP_{i:06}.png')
            Image.fromarray(labels).save(root / f'{split}annot' / f'0001TP_{i:06}.png')
    return root


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys, source):
    """A function that runs the tool into ``camvid`` and gives its lines, or its last one if it fails."""

    def run(status=0, counts=COUNTS):
        monkeypatch.setattr(sys, 'argv', ['camvid.py', str(source), '--out', str(tmp_path / 'camvid')])
        tool = runpy.run_path(str(SCRIPT))
        monkeypatch.setitem(tool['main'].__globals__, 'IMAGES', counts or tool['IMAGES'])
        if status == 0:
            tool['main']()
            return capsys.readouterr().out.splitlines()
        with pytest.raises(SystemExit) as end:
            tool['main']()
        assert end.value.code == status
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_layout_counts_and_a_run_that_was_cut_off(convert, source, tmp_path):
    assert any('3 images and annotations of train, 6 files copied' in line for line in convert())
    out = tmp_path / 'camvid'
    for kind, folder in (('images', 'val'), ('annotations', 'valannot')):
        copied, given = out / kind / 'val/0001TP_000001.png', source / folder / '0001TP_000001.png'
        assert copied.read_bytes() == given.read_bytes()
    (out / 'images/train/0001TP_000002.png').write_bytes(b'cut')
    lines = convert()
    assert any('of train, 1 files copied' in line for line in lines)
    assert any('of test, 0 files copied' in line for line in lines)
    assert not list(out.rglob('*.part'))
    # Of the same size, but another.
    copied = out / 'annotations/test/0001TP_000000.png'
    copied.write_bytes(copied.read_bytes()[::-1])
    assert any('of test, 1 files copied' in line for line in convert())
    assert copied.read_bytes() == (source / 'testannot/0001TP_000000.png').read_bytes()


def write_labels(path, labels):
    Image.fromarray(labels.astype('uint8')).save(path)


@pytest.mark.parametrize(
    ('break_it', 'culprit'),
    [
        (lambda root: (root / 'val/0001TP_000001.png').unlink(), 'val has 1 files *.png, 2 expected'),
        (lambda root: (root / 'testannot/0001TP_000000.png').unlink(), 'annotation not found: '),
        (lambda root: (root / 'valannot').rename(root / 'labels'), 'valannot; '),
        (lambda root: write_labels(root / 'trainannot/0001TP_000002.png', np.full((6, 8), 128)), 'the label 128'),
        (lambda root: write_labels(root / 'trainannot/0001TP_000002.png', np.zeros((6, 9))), 'has the shape (6, 9)'),
        (lambda root: write_labels(root / 'trainannot/0001TP_000002.png', np.zeros((6, 8, 3))), 'the shape (6, 8, 3)'),
        (lambda root: (root / 'train/0001TP_000001.png').write_bytes(b'no image'), 'cannot be read'),
    ],
)
def test_what_is_wrong_is_named(convert, source, break_it, culprit):
    break_it(source)
    line = convert(status=1)
    assert line.startswith('error: ') and culprit in line


def test_counts_are_those_of_segnets_split(convert):
    assert 'train has 3 files *.png, 367 expected' in convert(status=1, counts=None)
    assert runpy.run_path(str(SCRIPT))['IMAGES'] == {'train': 367, 'val': 101, 'test': 233}


def test_files_that_do_not_belong_there_are_reported(convert, tmp_path):
    convert()
    (tmp_path / 'camvid/images/val/other.png').write_bytes(b'')
    assert 'images/val has 3 files *.png, 2 expected: remove the others' in convert(status=1)
