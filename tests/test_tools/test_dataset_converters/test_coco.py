import json
import runpy
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/coco.py'
COUNTS = {'train2017': 5, 'val2017': 2}


def write_archives(folder, counts):
    """Archives of COCO's layout, with images that are a few bytes."""
    folder.mkdir()
    annotations = {}
    for split, count in counts.items():
        names = [f'{i:012}.jpg' for i in range(count)]
        with zipfile.ZipFile(folder / f'{split}.zip', 'w') as archive:
            archive.writestr(f'{split}/', '')
            for name in names:
                archive.writestr(f'{split}/{name}', f'image {name}')
        content = dict(
            images=[dict(id=i, file_name=name) for i, name in enumerate(names)],
            annotations=[dict(id=1, image_id=0, category_id=1, bbox=[0, 0, 1, 1])],
            categories=[dict(id=1, name='cat')],
        )
        annotations[f'annotations/instances_{split}.json'] = json.dumps(content)
    with zipfile.ZipFile(folder / 'annotations_trainval2017.zip', 'w') as archive:
        for name, text in annotations.items():
            archive.writestr(name, text)


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """A function that runs the tool on ``archives`` into ``coco`` and gives its last line."""
    write_archives(tmp_path / 'archives', COUNTS)

    def run(status=0, counts=COUNTS):
        monkeypatch.setattr(sys, 'argv', ['coco.py', str(tmp_path / 'archives'), '--out', str(tmp_path / 'coco')])
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


def test_layout_counts_and_second_run(convert, tmp_path):
    lines = convert()
    assert any('train2017: 5 images' in line for line in lines)
    assert any('instances_val2017.json: 2 images, 1 annotations, 1 categories' in line for line in lines)
    assert (tmp_path / 'coco/val2017/000000000001.jpg').read_text() == 'image 000000000001.jpg'
    # What is there needs no archive, and an interrupted run is taken up.
    (tmp_path / 'archives/val2017.zip').unlink()
    (tmp_path / 'coco/train2017/000000000003.jpg').unlink()
    assert any(line.endswith('train2017.zip: 1 files written') for line in convert())


def test_counts_are_those_of_coco(convert):
    line = convert(status=1, counts=None)
    assert line.startswith('error: ') and 'train2017 has 5 images, 118,287 expected' in line


def test_missing_archive(convert, tmp_path):
    (tmp_path / 'archives/val2017.zip').unlink()
    assert 'val2017.zip not found: download it' in convert(status=1)


def test_archive_that_is_cut_off(convert, tmp_path):
    archive = tmp_path / 'archives/train2017.zip'
    archive.write_bytes(archive.read_bytes()[:-40])
    assert 'train2017.zip is cut off or damaged' in convert(status=1)


@pytest.mark.parametrize(
    ('text', 'culprit'),
    [
        ('{"images": [', 'instances_val2017.json is damaged (JSONDecodeError'),
        ('{"images": []}', "instances_val2017.json is damaged (KeyError: 'annotations')"),
        (
            '{"images": [{"file_name": "other.jpg"}], "annotations": [], "categories": []}',
            'instances_val2017.json lists 1 images that are not in val2017, other.jpg among them',
        ),
    ],
)
def test_annotations_are_read(convert, tmp_path, text, culprit):
    convert()
    (tmp_path / 'archives/annotations_trainval2017.zip').unlink()
    (tmp_path / 'coco/annotations/instances_val2017.json').write_text(text)
    assert culprit in convert(status=1)
