import zipfile

import pytest

from mmmap.utils.archives import unpack_zip


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / 'images.zip'
    with zipfile.ZipFile(path, 'w') as content:
        content.writestr('a/', '')
        for name in ('a/1.txt', 'a/2.txt', 'b/3.txt'):
            content.writestr(name, f'this is {name}')
    return path


def test_unpacks_what_is_missing(archive, tmp_path):
    out = tmp_path / 'out'
    assert unpack_zip(archive, out) == 3
    assert (out / 'b/3.txt').read_text() == 'this is b/3.txt'
    (out / 'a/1.txt').write_text('cut')
    (out / 'b/3.txt').unlink()
    untouched = (out / 'a/2.txt').stat().st_mtime_ns
    assert unpack_zip(archive, out) == 2
    assert (out / 'a/1.txt').read_text() == 'this is a/1.txt'
    assert (out / 'a/2.txt').stat().st_mtime_ns == untouched
    assert unpack_zip(archive, out) == 0
    # Of the same size, but another.
    (out / 'a/1.txt').write_text('THIS is a/1.txt')
    assert unpack_zip(archive, out) == 1
    assert (out / 'a/1.txt').read_text() == 'this is a/1.txt'


def test_renames_and_leaves_out(archive, tmp_path):
    out = tmp_path / 'out'
    assert unpack_zip(archive, out, lambda name: f'x{name[1:]}' if name.startswith('a') else None) == 2
    assert sorted(str(path.relative_to(out)) for path in out.rglob('*.txt')) == ['x/1.txt', 'x/2.txt']


def test_nothing_is_written_outside(tmp_path):
    path = tmp_path / 'bad.zip'
    with zipfile.ZipFile(path, 'w') as content:
        content.writestr('../escaped.txt', 'out')
    with pytest.raises(ValueError, match=r'bad\.zip: \.\./escaped\.txt would be written outside'):
        unpack_zip(path, tmp_path / 'out')
    assert not (tmp_path / 'escaped.txt').exists()


def test_damaged_archives_are_named(archive, tmp_path):
    content = bytearray(archive.read_bytes())
    start = content.index(b'this is b/3.txt')
    content[start : start + 4] = b'THIS'
    for name, data in (('changed.zip', bytes(content)), ('cut.zip', archive.read_bytes()[:-30])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f'{name} is cut off or damaged'):
            unpack_zip(tmp_path / name, tmp_path / 'out')
    # What was whole is there, and no half-written file is taken for one.
    assert not (tmp_path / 'out/b/3.txt').exists()
    assert unpack_zip(archive, tmp_path / 'out') == 1
