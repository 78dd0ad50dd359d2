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


def test_class_indices():
    assert class_indices(np.array([0, 1, 39, 40, 2], np.uint8), (1, 2, 39)).tolist() == [255, 0, 2, 255, 1]
