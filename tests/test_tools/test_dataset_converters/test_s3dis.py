import os
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_scenes import AREAS, write_s3dis

from mmmap.datasets import S3DISScenes
from mmmap.structures.scene_files import write_scene

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/s3dis.py'


@pytest.fixture
def source(tmp_path):
    return write_s3dis(tmp_path / 'Stanford3dDataset_v1.2_Aligned_Version')


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys, source):
    """A function that runs the tool into ``s3dis`` and gives its lines, or its last one if it fails."""

    def run(status=0, counts=AREAS):
        monkeypatch.setattr(sys, 'argv', ['s3dis.py', str(source), '--out', str(tmp_path / 's3dis')])
        tool = runpy.run_path(str(SCRIPT))
        monkeypatch.setitem(tool['main'].__globals__, 'ROOMS', counts or tool['ROOMS'])
        if status == 0:
            tool['main']()
            return capsys.readouterr().out.splitlines()
        with pytest.raises(SystemExit) as end:
            tool['main']()
        assert end.value.code == status
        return capsys.readouterr().err.splitlines()[-1]

    return run


def test_rooms_and_their_labels(convert, source, tmp_path):
    assert any('Area_5: 2 rooms, 2 written' in line for line in convert())
    room = np.load(tmp_path / 's3dis/Area_5/office_2.npz')
    assert room['xyz'].dtype == np.float32 and room['rgb'].dtype == room['label'].dtype == np.uint8
    raw = np.loadtxt(source / 'Area_5/office_2/office_2.txt')
    assert np.array_equal(room['xyz'], raw[:, :3].astype('float32'))
    assert np.array_equal(room['rgb'], raw[:, 3:])
    # In the order of the files: chair_1, chair_2, floor_1, lamp_1, stairs_1.
    names = np.array(S3DISScenes.METAINFO['classes'])
    assert names[room['label']].tolist() == ['chair'] * 100 + ['floor'] * 120 + ['clutter'] * 30


def test_a_room_whose_files_changed_is_made_anew(convert, source, tmp_path):
    convert()
    room = tmp_path / 's3dis/Area_5/office_2.npz'
    chair = source / 'Area_5/office_2/Annotations/chair_1.txt'
    lines = chair.read_text().splitlines(keepends=True)
    before = chair.stat()
    chair.write_text(''.join(lines[::-1]))
    os.utime(chair, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert any('Area_5: 2 rooms, 1 written' in line for line in convert())
    first = np.array(lines[-1].split()[:3], 'f4')
    assert np.array_equal(np.load(room)['xyz'][0], first)
    chair.rename(chair.with_name('table_1.txt'))
    assert any('Area_5: 2 rooms, 1 written' in line for line in convert())
    assert S3DISScenes.METAINFO['classes'].index('table') in np.load(room)['label']
    # Nor is a room taken that does not tell what it was made from.
    write_scene(room, xyz=np.zeros((3, 3)), label=np.zeros(3), rgb=np.zeros((3, 3)))
    assert any('Area_5: 2 rooms, 1 written' in line for line in convert())
    assert len(np.load(room)['xyz']) == 250
    assert any('Area_5: 2 rooms, 0 written' in line for line in convert())


def test_a_run_that_was_cut_off_goes_on(convert, source, tmp_path):
    convert()
    whole = tmp_path / 's3dis/Area_2/office_1.npz'
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    lines = convert()
    assert any('Area_2: 1 rooms, 1 written' in line for line in lines)
    assert any('Area_5: 2 rooms, 0 written' in line for line in lines)
    assert np.array_equal(
        np.load(whole)['xyz'], np.loadtxt(source / 'Area_2/office_1/office_1.txt')[:, :3].astype('f4')
    )
    assert not list((tmp_path / 's3dis').rglob('*.part'))


@pytest.mark.parametrize('damage', [b'\x10', b'\x10 ', b' \x10'])
def test_the_damaged_line_of_the_release(convert, source, tmp_path, damage):
    path = source / 'Area_5/office_1/Annotations/floor_1.txt'
    lines = path.read_bytes().splitlines()
    words = lines[6].split()
    lines[6] = b' '.join(words[:4]) + damage + b' '.join(words[4:])
    path.write_bytes(b'\n'.join(lines))
    out = convert()
    assert any(f'{path}:7: a control character' in line for line in out)
    room = np.load(tmp_path / 's3dis/Area_5/office_1.npz')
    assert np.array_equal(room['rgb'], np.loadtxt(source / 'Area_5/office_1/office_1.txt')[:, 3:])


@pytest.mark.parametrize(
    ('break_it', 'culprit'),
    [
        (shutil.rmtree, 'no room in '),
        (lambda root: (root / 'Area_1/office_1/Annotations/chair_1.txt').write_text(''), 'chair_1.txt is empty'),
        (
            lambda root: (root / 'Area_1/office_1/Annotations/chair_2.txt').write_text('1 2 3 4 5 6\n1 2 3 4 5\n'),
            'chair_2.txt:2: not a line of six numbers',
        ),
        (
            lambda root: (root / 'Area_1/office_1/Annotations/chair_2.txt').write_text('1 2 3 4 5 6\n1 2 3 4 5 x\n'),
            'chair_2.txt:2: not a line of six numbers',
        ),
        (
            lambda root: (root / 'Area_1/office_1/Annotations/chair_2.txt').write_text('1 2 3 4 5 256\n'),
            'chair_2.txt: a coordinate is not finite or a colour is not a whole number from 0 to 255',
        ),
        (
            lambda root: (root / 'Area_1/office_1/Annotations/chair_2.txt').write_text('1 2 3 0.5 0 1\n'),
            'chair_2.txt: a coordinate is not finite or a colour is not a whole number from 0 to 255',
        ),
        (
            lambda root: (root / 'Area_1/office_1/Annotations/chair_2.txt').write_text('1 2 3 4 5 6\n# 1 2 3 4 5\n'),
            'chair_2.txt:2: not a line of six numbers',
        ),
    ],
)
def test_what_is_wrong_is_named(convert, source, tmp_path, break_it, culprit):
    break_it(source)
    line = convert(status=1)
    assert line.startswith('error: ') and culprit in line
    assert not list((tmp_path / 's3dis').rglob('*.part'))


def test_a_part_of_the_release(convert, source, tmp_path):
    shutil.rmtree(source / 'Area_3')
    shutil.rmtree(source / 'Area_5/office_2')
    shutil.rmtree(source / 'Area_6/office_1/Annotations')
    line = convert()[-1]
    assert line.startswith('INCOMPLETE: 0 of 1 in Area_3, 1 of 2 in Area_5, 0 of 1 in Area_6')
    missing = (tmp_path / 's3dis/missing.txt').read_text().splitlines()
    assert missing == [str(source / 'Area_3'), str(source / 'Area_6/office_1/Annotations')]
    written = sorted(str(path.relative_to(tmp_path / 's3dis')) for path in (tmp_path / 's3dis').rglob('*.npz'))
    assert written == [f'Area_{i}/office_1.npz' for i in (1, 2, 4, 5)]
    # The rest comes later.
    shutil.rmtree(source)
    write_s3dis(source)
    assert not any('INCOMPLETE' in line for line in convert())
    assert len(list((tmp_path / 's3dis').rglob('*.npz'))) == 7 and not (tmp_path / 's3dis/missing.txt').exists()


def test_counts_are_those_of_the_release(convert):
    assert 'INCOMPLETE: 1 of 44 in Area_1, 1 of 40 in Area_2, ' in convert(counts=None)[-1]
    rooms = runpy.run_path(str(SCRIPT))['ROOMS']
    assert sum(rooms.values()) == 272
    assert [rooms[f'Area_{i}'] for i in range(1, 7)] == [44, 40, 23, 49, 68, 48]


def test_files_that_do_not_belong_there_are_reported(convert, tmp_path):
    convert()
    shutil.copy(tmp_path / 's3dis/Area_1/office_1.npz', tmp_path / 's3dis/Area_1/office_9.npz')
    assert 'Area_1 has 2 files *.npz, 1 expected: remove the others' in convert(status=1)
