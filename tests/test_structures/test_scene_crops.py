import numpy as np
import pytest

from mmmap.structures.scene_crops import (
    cover_scene,
    draw_of_voxels,
    draw_points,
    split_points,
    to_crop_frame,
    voxel_ids,
)


@pytest.fixture
def xyz():
    """Points of a room of 7 x 3.5 x 2.5 m, with one on each corner of the plan."""
    inside = np.random.default_rng(0).uniform((-3, 2, 0), (4, 5.5, 2.5), (2000, 3))
    corners = [[x, y, 0] for x in (-3, 4) for y in (2, 5.5)]
    return np.concatenate([inside, corners]).astype(np.float32)


def test_voxels_against_a_plain_count(xyz):
    ids = voxel_ids(xyz, 0.4)
    cells = [tuple(cell) for cell in np.floor((xyz - xyz.min(0)) / 0.4).astype(int)]
    assert len(set(zip(ids, cells, strict=True))) == len(set(cells)) == ids.max() + 1
    drawn = draw_of_voxels(ids, np.random.default_rng(0))
    assert np.array_equal(ids[drawn], np.arange(ids.max() + 1))
    # Another seed draws other points of the same voxels.
    assert not np.array_equal(drawn, draw_of_voxels(ids, np.random.default_rng(1)))


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize(('crop', 'size', 'stride'), [('block', 1.0, 0.5), ('block', 20.0, 5.0), ('sphere', 1.2, 0.6)])
def test_crops_cover_every_point(xyz, crop, size, stride, shifted):
    times = np.zeros(len(xyz), int)
    for centre, found in cover_scene(xyz, crop, size, stride, np.random.default_rng(0), shifted):
        frame = to_crop_frame(xyz[found], centre, crop, size, 0.0)
        reach = np.abs(frame[:, :2]).max() if crop == 'block' else np.linalg.norm(frame, axis=1).max()
        assert reach <= (0.5 if crop == 'block' else 1) + 1e-4
        # All points that are within reach, not some.
        offsets = np.abs(xyz - centre)
        inside = (
            (offsets[:, :2].max(1) < 0.499 * size) if crop == 'block' else ((offsets**2).sum(1) < (0.999 * size) ** 2)
        )
        assert np.isin(np.flatnonzero(inside), found).all()
        times[found] += 1
    assert times.min() >= 1
    if size == 1.0 and not shifted:
        # 7 x 3.5 m in steps of 0.5 m: a point is in four blocks but for the border.
        assert np.median(times) == 4


def test_blocks_of_a_scene_lie_on_its_grid(xyz):
    centres = [centre[:2] for centre, _ in cover_scene(xyz, 'block', 1.0, 0.75, np.random.default_rng(0))]
    xs = sorted({round(float(x), 4) for x, _ in centres})
    assert xs == [-2.5, -1.75, -1.0, -0.25, 0.5, 1.25, 2.0, 2.75, 3.5]
    shifted = [centre[:2] for centre, _ in cover_scene(xyz, 'block', 1.0, 0.75, np.random.default_rng(0), True)]
    assert not np.allclose(shifted[0], centres[0])


def test_frames():
    point = np.array([[2.0, 3.0, 4.0]])
    centre = np.array([1.0, 1.0, 3.0])
    assert to_crop_frame(point, centre, 'block', 2.0, 1.0).tolist() == [[0.5, 1.0, 1.5]]
    assert to_crop_frame(point, centre, 'sphere', 2.0, 1.0).tolist() == [[0.5, 1.0, 0.5]]


@pytest.mark.parametrize(('count', 'parts'), [(30, 4), (100, 1), (300, 1)])
def test_parts_cover_a_crop(count, parts):
    indices = np.arange(1000, 1100)
    split = list(split_points(indices, count, np.random.default_rng(0)))
    assert len(split) == parts
    assert all(part.shape == (count,) for part in split)
    assert set(np.concatenate(split)) == set(indices)
    if count == 30:
        assert all(len(set(part)) == count for part in split)


def test_drawn_points():
    rng = np.random.default_rng(0)
    few, many = draw_points(np.arange(5), 12, rng), draw_points(np.arange(50), 12, rng)
    assert set(few) == set(range(5)) and len(few) == 12
    assert len(set(many)) == 12
