import os
import time

import pytest

from mmmap.utils.origin_mark import Origin


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two files whose times tell that they changed, as those of old files do."""
    now = time.time()
    monkeypatch.setattr('mmmap.utils.origin_mark.time.time', lambda: now + 100)
    for name in ('a', 'b'):
        (tmp_path / name).write_text(f'this is {name}')
    return [tmp_path / 'a', tmp_path / 'b']


def test_files_as_they_were_need_no_reading(files, monkeypatch):
    mark = Origin(files).mark()
    monkeypatch.setattr('mmmap.utils.origin_mark._digest_of_file', lambda path: pytest.fail('read'))
    assert Origin(files[::-1]).is_of(mark)


def test_touched_and_moved_files_are_the_same(files, tmp_path):
    mark = Origin(files).mark()
    os.utime(files[0], (0, 0))
    assert Origin(files).is_of(mark) and not Origin(files).is_unchanged(mark)
    (tmp_path / 'elsewhere').mkdir()
    moved = [path.rename(tmp_path / 'elsewhere' / path.name) for path in files]
    assert Origin(moved).is_of(mark)


def same_size_and_time(files):
    before = files[0].stat()
    files[0].write_text('this is A')
    assert files[0].stat().st_size == before.st_size
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    return files


@pytest.mark.parametrize(
    'change',
    [
        same_size_and_time,
        lambda files: files[:1],
        lambda files: [files[0], files[1].rename(files[1].with_name('c'))],
    ],
)
def test_other_files_are_others(files, change):
    mark = Origin(files).mark()
    assert not Origin(change(files)).is_of(mark)


def test_a_file_that_changed_a_moment_ago_is_read(files, monkeypatch):
    monkeypatch.setattr('mmmap.utils.origin_mark.time.time', lambda: files[0].stat().st_ctime)
    mark = Origin(files).mark()
    assert not Origin(files).is_unchanged(mark) and Origin(files).is_of(mark)


def test_other_settings_and_other_marks(files):
    mark = Origin(files, 'columns 3').mark()
    assert Origin(files, 'columns 3').is_of(mark)
    assert not Origin(files, 'columns 4').is_of(mark)
    for other in (b'', b'\x00\xff', b'[]', b'{}', b'null', b'{"state": null}', mark[:-2]):
        assert not Origin(files, 'columns 3').is_of(other)
