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

    monkeypatch.setattr('mmmap.structures.cloud_files.os.replace', refuse)
    assert np.array_equal(read_table(path, 3), TABLE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ('text', 'culprit'),
    [
        (None, 'chair.txt is missing'),
        ('1 2 3\n4 five 6\n', 'chair.txt is no table of numbers'),
        ('1 2 3\n4 5\n', 'chair.txt is no table of numbers'),
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
    content = (tmp_path / 'chair.npy').read_bytes()
    (tmp_path / 'chair.npy').write_bytes(content[:-8])
    with pytest.raises(ValueError, match=r'chair.npy is cut off'):
        read_table(tmp_path / 'chair.txt', 3)
    with pytest.raises(ValueError, match=r'desk.npy is missing'):
        read_array(tmp_path / 'desk.npy')
