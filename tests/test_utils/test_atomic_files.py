import pytest

from mmmap.utils.atomic_files import atomic_path


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / 'new' / 'a.txt'
    with atomic_path(path) as part:
        part.write_text('one')
        assert not path.exists()
    assert path.read_text() == 'one'
    assert list(path.parent.iterdir()) == [path]


def test_the_former_file_stays_where_writing_fails(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('former')
    with pytest.raises(OSError, match='full'), atomic_path(path) as part:
        part.write_text('half')
        raise OSError('the disk is full')
    assert path.read_text() == 'former'
    assert list(tmp_path.iterdir()) == [path]


def test_two_may_write_the_same_file(tmp_path):
    with atomic_path(tmp_path / 'a') as one, atomic_path(tmp_path / 'a') as other:
        one.write_text('one')
        other.write_text('other')
    assert (tmp_path / 'a').read_text() == 'one'
