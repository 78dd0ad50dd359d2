import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_scenes import SCANS, write_mesh, write_scannet

from mmmap.structures.ply import read_ply

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/scannet.py'
FIRST = 'scans/scene0000_00/scene0000_00_vh_clean_2'


@pytest.fixture
def source(tmp_path):
    return write_scannet(tmp_path / 'ScanNet')


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys, source):
    """A function that runs the tool into ``scannet`` and gives its lines, or its last one if it fails."""

    def run(status=0, counts=SCANS):
        monkeypatch.setattr(sys, 'argv', ['scannet.py', str(source), '--out', str(tmp_path / 'scannet')])
        tool = runpy.run_path(str(SCRIPT))
        monkeypatch.setitem(tool['main'].__globals__, 'SCANS', counts or tool['SCANS'])
        if status == 0:
            tool['main']()
            return capsys.readouterr().out.splitlines()
        with pytest.raises(SystemExit) as end:
            tool['main']()
        assert end.value.code == status
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_scans_and_their_labels(convert, source, tmp_path):
    assert any('val: 1 scans, 1 written' in line for line in convert())
    mesh = read_ply(source / f'{FIRST}.ply')
    scan = np.load(tmp_path / 'scannet/train/scene0000_00.npz')
    assert np.array_equal(scan['xyz'], np.stack([mesh[name] for name in 'xyz'], axis=1))
    assert np.array_equal(scan['rgb'], np.stack([mesh[name] for name in ('red', 'green', 'blue')], axis=1))
    # NYU40's wall, floor, blinds and otherfurniture; the third is not one of the 20 classes.
    assert scan['label'].tolist() == [0] * 100 + [1] * 100 + [255] * 100 + [19] * 100
    assert set(np.load(tmp_path / 'scannet/test/scene0003_00.npz').files) == {'xyz', 'rgb'}


def test_a_run_that_was_cut_off_goes_on(convert, tmp_path):
    convert()
    whole = tmp_path / 'scannet/train/scene0001_00.npz'
    whole.write_bytes(whole.read_bytes()[:300])
    assert any('train: 2 scans, 1 written' in line for line in convert())
    assert len(np.load(whole)['label']) == 400


def test_a_scan_whose_labels_changed_is_made_anew(convert, source, tmp_path):
    convert()
    relabel(source / f'{FIRST}.labels.ply', [2] * 400)
    assert any('train: 2 scans, 1 written' in line for line in convert())
    assert np.load(tmp_path / 'scannet/train/scene0000_00.npz')['label'].tolist() == [1] * 400
    assert any('train: 2 scans, 0 written' in line for line in convert())


def cut(path, count):
    path.write_bytes(path.read_bytes()[:count])


def relabel(path, labels):
    write_mesh(path, np.zeros((len(labels), 6)), np.array(labels))


@pytest.mark.parametrize(
    ('break_it', 'culprit'),
    [
        (lambda root: [path.unlink() for path in root.glob('*.txt')], 'scannetv2_train.txt is missing, for instance'),
        (lambda root: [path.unlink() for path in root.rglob('*.ply')], 'no scan of the lists is in '),
        (lambda root: (root / 'scannetv2_val.txt').write_text('a b a'), 'scannetv2_val.txt names a twice'),
        (lambda root: cut(root / f'{FIRST}.ply', 3000), 'vh_clean_2.ply is cut off: '),
        (lambda root: cut(root / f'{FIRST}.ply', 40), 'vh_clean_2.ply: its header does not end'),
        (lambda root: relabel(root / f'{FIRST}.labels.ply', [1, 2]), 'labels.ply has 2 vertices, its mesh 400'),
        (lambda root: relabel(root / f'{FIRST}.labels.ply', [0] * 400), 'no vertex has a label of the benchmark'),
        (lambda root: write_mesh(root / f'{FIRST}.labels.ply', np.zeros((400, 6))), "its vertices have no 'label'"),
    ],
)
def test_what_is_wrong_is_named(convert, source, break_it, culprit):
    break_it(source)
    line = convert(status=1)
    assert line.startswith('error: ') and culprit in line


def test_a_part_of_the_scans(convert, source, tmp_path):
    labels = source / f'{FIRST}.labels.ply'
    labels.rename(tmp_path / 'kept.ply')
    (source / 'scannetv2_val.txt').unlink()
    lines = convert()
    assert any('train: 1 scans, 1 written' in line for line in lines)
    assert any('test: 1 scans, 1 written' in line for line in lines)
    assert lines[-1].startswith('INCOMPLETE: 1 of 2 in train, 0 of 1 in val; ') and f'{labels} is missing' in lines[-1]
    missing = (tmp_path / 'scannet/missing.txt').read_text().splitlines()
    assert missing == [str(labels), str(source / 'scannetv2_val.txt')]
    (tmp_path / 'kept.ply').rename(labels)
    lines = convert()
    assert any('train: 2 scans, 1 written' in line for line in lines)
    assert (tmp_path / 'scannet/missing.txt').read_text().splitlines() == missing[1:]


def test_scans_of_no_list_are_reported(convert, tmp_path):
    convert()
    (tmp_path / 'scannet/val/mine.npz').write_bytes(b'')
    assert 'val has mine.npz, which is not in the list: remove it' in convert(status=1)


def test_counts_are_those_of_the_release(convert):
    assert 'INCOMPLETE: 2 of 1,201 in train, 1 of 312 in val, 1 of 100 in test' in convert(counts=None)[-1]
    assert runpy.run_path(str(SCRIPT))['SCANS'] == {'train': 1201, 'val': 312, 'test': 100}
