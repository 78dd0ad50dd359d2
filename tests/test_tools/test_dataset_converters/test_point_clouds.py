"""The tool that checks releases of shapes, on small ones in the layouts of the real ones."""

import runpy
import sys
from pathlib import Path

import pytest
from raw_shapes import (
    MODELNET,
    SCANOBJECTNN,
    SHAPENET55,
    SHAPENETPART,
    write_few_shot,
    write_modelnet,
    write_scanobjectnn,
    write_shapenet55,
    write_shapenetpart,
)

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/point_clouds.py'
# What the small releases have, in the order of the tool's parts.
COUNTS = {
    'modelnet40': [sum(classes.values()) for classes in MODELNET.values()],
    'scanobjectnn': list(SCANOBJECTNN.values()) * 3,
    'shapenet55': list(SHAPENET55.values()),
    'shapenetpart': [sum(map(len, categories.values())) for categories in SHAPENETPART.values()],
}
WRITE = {
    'modelnet40': write_modelnet,
    'scanobjectnn': write_scanobjectnn,
    'shapenet55': write_shapenet55,
    'shapenetpart': write_shapenetpart,
}


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """A function that runs the tool and gives its lines, or its last one if it fails."""

    def run(release, parts=None, status=0):
        monkeypatch.setattr(sys, 'argv', ['point_clouds.py', release, str(tmp_path / 'raw')])
        tool = runpy.run_path(str(SCRIPT))
        if parts is None and release in COUNTS:
            parts = [(*part[:2], count) for part, count in zip(tool['PARTS'][release], COUNTS[release], strict=True)]
        monkeypatch.setitem(tool['PARTS'], release, parts or tool['PARTS'][release])
        if status == 0:
            tool['main']()
            return capsys.readouterr().out.splitlines()
        with pytest.raises(SystemExit) as end:
            tool['main']()
        assert end.value.code == status
        return capsys.readouterr().err.splitlines()[-1]

    return run


@pytest.mark.parametrize('release', COUNTS)
def test_releases(check, tmp_path, release):
    if release == 'scanobjectnn':
        pytest.importorskip('h5py')
    WRITE[release](tmp_path / 'raw')
    lines = [line for line in check(release) if ' shapes of ' in line]
    assert [int(line.split(': ')[1].split()[0]) for line in lines] == COUNTS[release]
    assert bool(list((tmp_path / 'raw').rglob('*_0001.npy'))) == (release == 'modelnet40')


def test_few_shot_folds(check, tmp_path):
    write_few_shot(tmp_path / 'raw')
    part = dict(type='ModelNetFewShot', way=5, shot=10, fold=0, split='test')
    assert any('10 shapes of a fold' in line for line in check('modelnet-fewshot', [('a fold', part, 10)]))
    assert '0.pkl is missing' in check('modelnet-fewshot', [('a fold', part | dict(way=10), 10)], status=1)


def test_what_is_wrong_is_named(check, tmp_path):
    assert 'folder not found' in check('modelnet40', status=1)
    root = write_modelnet(tmp_path / 'raw')
    (root / 'xbox/xbox_0001.txt').write_text('cut')
    assert 'xbox_0001.txt is not a table of numbers' in check('modelnet40', status=1)


def test_counts_are_those_of_the_releases():
    parts = runpy.run_path(str(SCRIPT))['PARTS']
    assert [sum(count for *_, count in parts[name]) for name in ('modelnet40', 'shapenet55', 'shapenetpart')] == [
        12311,
        52470,
        16881,
    ]
    assert sum(count for *_, count in parts['scanobjectnn']) == 2 * 2890 + 14298
    # Ten folds of four settings, each with 20 queries a class.
    assert len(parts['modelnet-fewshot']) == 80
    assert sum(count for *_, count in parts['modelnet-fewshot']) == 10 * (50 + 100 + 100 + 200 + 2 * 100 + 2 * 200)
