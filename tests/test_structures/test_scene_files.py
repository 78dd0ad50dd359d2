import numpy as np
import pytest

from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import class_indices, count_points, is_scene, read_scene, write_scene


@pytest.fixture
def xyz():
    """Points of a room of 7 x 3.5 x 2.5 m, with one on each corner of the plan."""
    inside = np.random.default_rng(0).uniform((-3, 2, 0), (4, 5.5, 2.5), (2000, 3))
    corners = [[x, y, 0] for x in (-3, 4) for y in (2, 5.5)]
    return np.concatenate([inside, corners]).astype(np.float32)


def test_scene_files(tmp_path, xyz):
    path = tmp_path / 'area' / 'room.npz'
    write_scene(path, xyz=xyz, label=np.zeros(len(xyz), np.uint8))
    assert count_points(path) == len(xyz)
    assert np.array_equal(read_scene(path)['xyz'], xyz)
    assert [p.name for p in path.parent.iterdir()] == ['room.npz']
    path.write_bytes(path.read_bytes()[:500])
    assert not is_scene(path)
    for read in (count_points, read_scene):
        with pytest.raises(ValueError, match=r'room\.npz is cut off'):
            read(path)
    np.savez(path, xyz=xyz, label=np.zeros(3))
    with pytest.raises(ValueError, match=r'room\.npz: its array label has the shape \(3,\)'):
        read_scene(path)
    np.savez(path, points=xyz)
    with pytest.raises(ValueError, match=r'room\.npz has no points'):
        read_scene(path)


def test_ply_scenes(tmp_path, xyz):
    rgb, label = np.random.default_rng(0).integers(0, 256, (len(xyz), 3)), np.arange(len(xyz)) % 7
    write_ply(tmp_path / 'a.ply', xyz, rgb, label=label.astype(np.uint8))
    scene = read_scene(tmp_path / 'a.ply')
    assert set(scene) == {'xyz', 'rgb', 'label'}
    assert np.array_equal(scene['xyz'], xyz) and np.array_equal(scene['rgb'], rgb)
    assert np.array_equal(scene['label'], label)
    write_ply(tmp_path / 'a.ply', xyz)
    assert set(read_scene(tmp_path / 'a.ply')) == {'xyz'}


def test_points_and_colours_that_are_none(tmp_path, xyz):
    path = tmp_path / 'room.npz'
    bad = xyz.copy()
    bad[[7, 9], 1] = np.nan
    write_scene(path, xyz=bad)
    with pytest.raises(ValueError, match=r'room\.npz: point 7 is not finite \(.*nan.*\), 2 of 2,004 points'):
        read_scene(path)
    write_scene(path, xyz=xyz[:0])
    for read in (count_points, read_scene):
        with pytest.raises(ValueError, match=r'room\.npz has no points'):
            read(path)
    write_scene(path, xyz=xyz, rgb=np.linspace(0, 1, 3 * len(xyz)).reshape(-1, 3))
    with pytest.raises(ValueError, match=r'room\.npz: rgb goes up to 1: .*rgb_max=1'):
        read_scene(path)
    assert 'rgb' not in read_scene(path, colours=False)
    assert read_scene(path, rgb_max=1)['rgb'].max() == 255
    write_scene(path, xyz=xyz, rgb=np.full((len(xyz), 4), 9))
    with pytest.raises(ValueError, match=r'room\.npz: rgb has the shape \(2004, 4\)'):
        read_scene(path)


@pytest.mark.parametrize(
    ('labels', 'expected'),
    [
        ([-1, 1, 2, 3], [255, 0, 1, 2]),
        ([-100, 3, 10**12, 2], [255, 2, 255, 1]),
        (np.array([1.0, 3.0, -1.0, 1e9], np.float32), [0, 2, 255, 255]),
        (np.array([2**64 - 1, 1], np.uint64), [255, 0]),
        (np.array([True, False]), [0, 255]),
        (np.array([250, 3], np.uint8), [255, 2]),
        (np.array([], np.int8), []),
    ],
)
def test_labels_never_wrap(labels, expected):
    indices = class_indices(np.asarray(labels), (1, 2, 3))
    assert indices.dtype == np.int64 and indices.tolist() == expected
    # The order of the classes is the config's.
    turned = class_indices(np.asarray(labels), (3, 1, 2))
    assert turned.tolist() == [{0: 1, 1: 2, 2: 0}.get(label, 255) for label in expected]


@pytest.mark.parametrize(
    ('labels', 'culprit'),
    [
        (np.array([1, 2.5, np.nan]), r'room: label 2.5 is not a whole number \(2 of 3\)'),
        (np.array([np.inf]), 'room: label inf is not a whole number'),
        (np.array(['wall']), 'room: labels are of type <U4'),
        (np.array([None]), 'room: labels are of type object'),
    ],
)
@pytest.mark.parametrize('unknown', ['ignore', 'error'])
def test_labels_that_are_no_numbers(labels, unknown, culprit):
    with pytest.raises(ValueError, match=culprit):
        class_indices(labels, (1, 2, 3), unknown, 'room')


def test_unknown_labels_can_be_refused():
    labels = np.array([1, 7, 255, -1, 7])
    with pytest.raises(ValueError, match=r'^room: 3 of 5 labels, -1 \(1\), 7 \(2\), are none of \[1, 2\]'):
        class_indices(labels, (1, 2), 'error', 'room')
    assert class_indices(labels[[0, 2]], (1, 2), 'error', 'room').tolist() == [0, 255]
    with pytest.raises(ValueError, match=r'-3 \(1\), -2 \(1\), -1 \(1\), 4 \(1\), 5 \(1\) and 2 more values, are'):
        class_indices(np.array([4, 5, 6, 7, -1, -2, -3]), (1, 2), 'error', 'room')


def test_class_indices():
    assert class_indices(np.array([0, 1, 39, 40, 2], np.uint8), (1, 2, 39)).tolist() == [255, 0, 2, 255, 1]


@pytest.mark.parametrize('class_labels', [(-1, 2**40, 2**63 - 2), (-1, 5, 9)])
def test_huge_labels_are_none_of_the_classes(class_labels):
    labels = np.array([2**64 - 1, 2**63 + 5, class_labels[1], 2**40 + 1], np.uint64)
    assert class_indices(labels, class_labels).tolist() == [255, 255, 1, 255]
    assert class_indices(np.array([-1, *class_labels[::-1]]), class_labels).tolist() == [0, 2, 1, 0]
    with pytest.raises(ValueError, match=r'room: 3 of 4 labels, .* are none of'):
        class_indices(labels, class_labels, 'error', 'room')


def test_classes_that_are_none():
    with pytest.raises(ValueError, match=r'class_labels: label 1\.5 is not a whole number'):
        class_indices(np.array([1, 2]), (1.5, 2))
    with pytest.raises(ValueError, match='room: there are no classes'):
        class_indices(np.array([1, 2]), (), name='room')


def test_points_are_counted_whatever_the_colours_are(tmp_path, xyz):
    rgb = np.linspace(0, 1, 3 * len(xyz)).reshape(-1, 3)
    columns = dict(zip(('red', 'green', 'blue'), rgb.T, strict=True))
    write_ply(tmp_path / 'a.ply', xyz, **columns)
    assert count_points(tmp_path / 'a.ply') == len(xyz)


def test_compressed_scenes_that_are_damaged(tmp_path, xyz):
    path = tmp_path / 'room.npz'
    np.savez_compressed(path, xyz=xyz)
    content = bytearray(path.read_bytes())
    content[60:80] = b'\xff' * 20
    path.write_bytes(content)
    assert not is_scene(path)
    with pytest.raises(ValueError, match=r'room\.npz is cut off'):
        count_points(path)
    with pytest.raises(ValueError, match=r'none\.npz is missing'):
        count_points(tmp_path / 'none.npz')
