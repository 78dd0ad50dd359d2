import os

import numpy as np
import pytest

from mmmap.structures.cloud_files import read_array, read_table

TABLE = np.arange(12, dtype='float32').reshape(4, 3) / 8


def test_a_text_is_parsed_once(tmp_path):
    path = tmp_path / 'chair.txt'
    np.savetxt(path, TABLE, delimiter=',')
    assert np.array_equal(read_table(path, 3, ','), TABLE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['chair.npy', 'chair.txt']
    path.unlink()
    assert np.array_equal(read_table(path, 3, ','), TABLE)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    path = tmp_path / 'chair.txt'
    np.savetxt(path, TABLE)

    def refuse(*args):
        raise OSError('read-only')

    monkeypatch.setattr('mmmap.utils.atomic_files.os.replace', refuse)
    assert np.array_equal(read_table(path, 3), TABLE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ('text', 'culprit'),
    [
        (None, 'chair.txt is missing'),
        ('1 2 3\n4 five 6\n', 'chair.txt is not a table of numbers'),
        ('1 2 3\n4 5\n', 'chair.txt is not a table of numbers'),
        ('1 2 3\n# 4 5 6\n7 8 9\n', 'chair.txt is not a table of numbers'),
        ('1 2\n4 5\n', r'chair.txt has the shape \(2, 2\), not \(N, 3\)'),
    ],
)
def test_texts_that_are_no_table(tmp_path, text, culprit):
    if text is not None:
        (tmp_path / 'chair.txt').write_text(text)
    with pytest.raises(ValueError, match=culprit):
        read_table(tmp_path / 'chair.txt', 3)


def test_arrays_that_are_none(tmp_path):
    np.save(tmp_path / 'chair.npy', TABLE)
    with pytest.raises(ValueError, match=r'chair.npy has the shape \(4, 3\), not \(N, 6\): remove it'):
        read_table(tmp_path / 'chair.txt', 6)
    with pytest.raises(ValueError, match=r'chair.txt is missing'):
        read_table(tmp_path / 'chair.txt', 3)
    content = (tmp_path / 'chair.npy').read_bytes()
    (tmp_path / 'chair.npy').write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r'chair.npy is cut off'):
        read_array(tmp_path / 'chair.npy')
    with pytest.raises(ValueError, match=r'desk.npy is missing'):
        read_array(tmp_path / 'desk.npy')


def replace(path, table, keep_time=False):
    before = path.stat()
    np.savetxt(path, table, '%.3f')
    if keep_time:
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize('keep_time', [False, True])
@pytest.mark.parametrize('marked', [False, True])
@pytest.mark.parametrize('settled', [False, True])
def test_a_text_that_was_replaced(tmp_path, monkeypatch, keep_time, marked, settled):
    if settled:
        monkeypatch.setattr('mmmap.utils.origin_mark.SETTLED_AFTER', -1e9)
    path = tmp_path / 'chair.txt'
    np.savetxt(path, TABLE, '%.3f')
    if marked:
        read_table(path, 3)
    else:
        np.save(tmp_path / 'chair.npy', TABLE)
    replace(path, TABLE[::-1], keep_time)
    assert np.array_equal(read_table(path, 3), TABLE[::-1])
    # And the copy is of the new text.
    monkeypatch.setattr('numpy.loadtxt', lambda *args, **kwargs: pytest.fail('parsed again'))
    assert np.array_equal(read_table(path, 3), TABLE[::-1])
    # A text that was moved or touched, its bytes as they were, has its copy still.
    os.utime(path)
    assert np.array_equal(read_table(path, 3), TABLE[::-1])


def test_a_copy_that_is_damaged_or_of_other_settings_is_made_again(tmp_path):
    path, kept = tmp_path / 'chair.txt', tmp_path / 'chair.npy'
    np.savetxt(path, TABLE)
    read_table(path, 3)
    content = kept.read_bytes()
    for damaged in (content[:100], content[:-10], b''):
        kept.write_bytes(damaged)
        assert np.array_equal(read_table(path, 3), TABLE)
        assert np.array_equal(np.load(kept), TABLE)
    with pytest.raises(ValueError, match=r'chair.txt has the shape \(4, 3\), not \(N, 4\)'):
        read_table(path, 4)


@pytest.mark.parametrize('end', [2, 2.2, 1])
def test_a_text_cut_off_at_the_end_of_a_line(tmp_path, end):
    path = tmp_path / 'chair.txt'
    np.savetxt(path, TABLE, '%.3f')
    read_table(path, 3)
    lines = path.read_text().splitlines(keepends=True)
    # Also within the last number of a line.
    path.write_text(''.join(lines[: int(end)]) + (lines[2][:-2] if end > 2 else ''))
    rows = int(np.ceil(end))
    with pytest.raises(ValueError, match=f'chair.txt is cut off: it has {rows} of the 4 rows that it had'):
        read_table(path, 3)
    (tmp_path / 'chair.npy').unlink()
    assert len(read_table(path, 3)) == rows


def test_large_coordinates_stay_apart(tmp_path):
    path = tmp_path / 'tile.txt'
    table = np.array([[698001.01, 5360002.02, 0.1], [698001.02, 5360002.03, 0.2]])
    np.savetxt(path, table, '%.2f')
    for _ in range(2):
        assert read_table(path, 3).dtype == np.float64
        assert np.array_equal(read_table(path, 3), table)
    np.savetxt(path, table - table[0], '%.2f')
    assert read_table(path, 3).dtype == np.float32
