import numpy as np
import pytest

from mmmap.structures.ply import read_ply, write_ply

ASCII = """ply
format ascii 1.0
comment written by hand
element vertex 3
property float x
property float y
property double z
property uchar label
element face 1
property list uchar int vertex_indices
end_header
0 0 0.5 1
1 0 0.25 2
0 1 -1e-3 255
3 0 1 2
"""


def test_ascii_with_faces(tmp_path):
    (tmp_path / 'a.ply').write_text(ASCII)
    vertices = read_ply(tmp_path / 'a.ply')
    assert list(vertices) == ['x', 'y', 'z', 'label']
    assert vertices['z'].tolist() == [0.5, 0.25, -1e-3]
    assert vertices['label'].dtype == np.uint8 and vertices['label'].tolist() == [1, 2, 255]


def test_what_is_written_is_read(tmp_path):
    rng = np.random.default_rng(0)
    xyz, rgb, label = rng.normal(size=(50, 3)).astype('f4'), rng.integers(0, 256, (50, 3)), rng.integers(0, 9, 50)
    path = tmp_path / 'new' / 'cloud.ply'
    write_ply(path, xyz, rgb, label=label.astype(np.int32))
    vertices = read_ply(path)
    assert np.array_equal(np.stack([vertices[name] for name in 'xyz'], axis=1), xyz)
    assert np.array_equal(np.stack([vertices[name] for name in ('red', 'green', 'blue')], axis=1), rgb)
    assert np.array_equal(vertices['label'], label)
    assert [p.name for p in path.parent.iterdir()] == ['cloud.ply']


@pytest.mark.parametrize(
    ('change', 'culprit'),
    [
        (lambda text: 'plx' + text[3:], 'not a PLY file'),
        (lambda text: text[: text.index('1 0 0.25')], 'is cut off: it has room for 1 of its 3 points'),
        (lambda text: text.replace('0 0 0.5 1', '0 0 0.5'), 'its points cannot be read'),
        (lambda text: text.replace('ascii', 'binary'), "its format is 'binary'"),
        (lambda text: text.replace('element vertex 3', 'element vertex 0'), 'it has no vertices'),
        (lambda text: text.replace('property uchar', 'property half'), "the unknown type 'half'"),
        (lambda text: text.replace('property uchar label', 'property list uchar int label'), "have a list, 'label'"),
        (lambda text: text.replace('element vertex', 'element camera'), 'it has no vertices'),
        (lambda text: text[: text.index('end_header')], 'its header does not end'),
    ],
)
def test_damage_is_named(tmp_path, change, culprit):
    (tmp_path / 'a.ply').write_text(change(ASCII))
    with pytest.raises(ValueError, match=r'a\.ply') as error:
        read_ply(tmp_path / 'a.ply')
    assert culprit in str(error.value)


def test_a_property_of_another_length_is_named(tmp_path):
    with pytest.raises(ValueError, match='label: shape'):
        write_ply(tmp_path / 'a.ply', np.zeros((4, 3)), label=np.zeros(5, np.uint8))
