"""The tool that lists faults; what it finds is tested with mmmap.datasets."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def check(run_tool, capsys, tmp_path, monkeypatch):
    """A function that runs the tool in ``tmp_path``; returns its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            run_tool('dataset_converters/check_annotations.py', *arguments)
        printed = capsys.readouterr()
        return end.value.code, (printed.out + printed.err).splitlines()

    return run


def test_objects(check, tmp_path):
    entry = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
    content = dict(
        images=[dict(id=1, file_name='a.png', width=8, height=8)],
        categories=[dict(id=1, name='thing')],
        annotations=[entry],
    )
    (tmp_path / 'own.json').write_text(json.dumps(content))
    Image.new('RGB', (8, 8)).save('a.png')
    status, lines = check('own.json', '.')
    assert status == 0 and lines[-3:] == [
        'own.json: 1 images, 1 annotations, 1 categories',
        'objects of each class: thing 1',
        'no faults',
    ]
    del entry['iscrowd']
    (tmp_path / 'own.json').write_text(json.dumps(content))
    status, lines = check('own.json')
    assert status == 1 and lines[-1] == '1 fault'
    assert 'own.json: annotation 1 of image 1: has no iscrowd, without which it cannot be evaluated: write 0' in lines


def test_masks(check, tmp_path):
    for name, shape in (('images', (8, 8, 3)), ('masks', (8, 8))):
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones(shape, 'uint8')).save(tmp_path / name / 'a.png')
    status, lines = check('images', 'masks', '--num-classes', 2)
    assert status == 0 and lines[-2:] == ['pixels of each label: 1 100.00 %', 'no faults']
    status, lines = check('images', 'masks', '--num-classes', 1)
    assert status == 1 and any('masks/a.png: has the label 1' in line for line in lines)


def test_mistakes_end_in_one_line(check):
    assert check('no.json') == (1, ['error: there is no file or folder no.json'])
    status, lines = check('.')
    assert status == 2 and lines[-1].endswith('name the folder of their masks as well')
