import runpy
import sys
import zipfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / 'tools/dataset_converters/ade20k.py'
COUNTS = {'training': 5, 'validation': 2}
ROOT = 'ADEChallengeData2016'


def write_archive(path, counts=COUNTS):
    """An archive of the released layout, with images that are a few bytes."""
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'{ROOT}/objectInfo150.txt', 'Idx')
        archive.writestr('__MACOSX/ADEChallengeData2016/._sceneCategories.txt', 'junk')
        for split, count in counts.items():
            for i in range(count):
                name = f'ADE_{"train" if split == "training" else "val"}_{i + 1:08}'
                archive.writestr(f'{ROOT}/images/{split}/{name}.jpg', f'image {name}')
                archive.writestr(f'{ROOT}/annotations/{split}/{name}.png', f'labels of {name}')


@pytest.fixture
def convert(tmp_path, monkeypatch, capsys):
    """A function that runs the tool into ``ade`` and gives its lines, or its last one if it fails."""

    def run(*archive, status=0, counts=COUNTS):
        monkeypatch.setattr(sys, 'argv', ['ade20k.py', *map(str, archive), '--out', str(tmp_path / 'ade')])
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


def test_layout_counts_and_a_run_that_was_cut_off(convert, tmp_path):
    archive = tmp_path / f'{ROOT}.zip'
    write_archive(archive)
    lines = convert(archive)
    assert any(line.endswith('15 files written') for line in lines)
    assert any(line.endswith('5 images and annotations of training') for line in lines)
    root = tmp_path / 'ade' / ROOT
    assert (root / 'images/training/ADE_train_00000001.jpg').read_text() == 'image ADE_train_00000001'
    assert not (tmp_path / 'ade/__MACOSX').exists()

    (root / 'images/validation/ADE_val_00000002.jpg').write_text('cut')
    (root / 'annotations/training/ADE_train_00000003.png').unlink()
    assert any(line.endswith(' 2 files written') for line in convert(archive))
    # What is there needs no archive.
    assert not any('written' in line for line in convert())


@pytest.mark.parametrize(
    ('counts', 'culprit'),
    [
        (None, 'images/training has 5 files *.jpg, 20,210 expected'),
        ({'training': 5, 'validation': 3}, 'images/validation has 2 files *.jpg, 3 expected'),
    ],
)
def test_wrong_counts_are_named(convert, tmp_path, counts, culprit):
    write_archive(tmp_path / 'a.zip')
    assert culprit in convert(tmp_path / 'a.zip', status=1, counts=counts)


def test_missing_things_are_named(convert, tmp_path):
    assert 'archive not found' in convert(tmp_path / 'no.zip', status=1)
    assert 'images/training not found: give the archive' in convert(status=1)
    write_archive(tmp_path / 'a.zip')
    convert(tmp_path / 'a.zip')
    folder = tmp_path / 'ade' / ROOT / 'annotations/validation'
    (folder / 'ADE_val_00000002.png').rename(folder / 'other.png')
    assert 'annotations/validation has no ADE_val_00000002.png' in convert(status=1)


def test_damaged_archive_is_named(convert, tmp_path):
    write_archive(tmp_path / 'a.zip')
    (tmp_path / 'a.zip').write_bytes((tmp_path / 'a.zip').read_bytes()[:-100])
    assert 'a.zip is cut off or damaged' in convert(tmp_path / 'a.zip', status=1)


def test_counts_are_those_of_the_release():
    assert runpy.run_path(str(SCRIPT))['IMAGES'] == {'training': 20_210, 'validation': 2_000}
