import warnings

import numpy as np
import pytest

from mmmap.structures import scene_crops
from mmmap.structures.scene_crops import (
    cover_scene,
    draw_point_per_voxel,
    draw_points,
    points_around,
    split_points,
    to_crop_frame,
    voxel_ids,
    warn_unless_metres,
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
    drawn = draw_point_per_voxel(ids, np.random.default_rng(0))
    assert np.array_equal(ids[drawn], np.arange(ids.max() + 1))
    # Another seed draws other points of the same voxels.
    assert not np.array_equal(drawn, draw_point_per_voxel(ids, np.random.default_rng(1)))


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


def grid(low, high, size, stride, shift, shifted):
    """Where all the blocks along an axis start."""
    if high - low <= size and not shifted:
        return [(low + high - size) / 2]
    count = max(0, int(np.ceil((high - low + shift - size) / stride))) + 1
    starts = low - shift + stride * np.arange(count)
    return starts if shifted else np.minimum(starts, high - size)


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize(('size', 'stride'), [(1.0, 0.5), (1.0, 1.0), (1.3, 0.7), (2.0, 0.6), (6.0, 5.0)])
@pytest.mark.parametrize('seed', range(5))
def test_blocks_are_those_of_a_whole_grid_that_hold_points(size, stride, shifted, seed):
    """Against a look at every place of the grid, on scenes with much empty ground."""
    xyz = np.random.default_rng(seed).uniform(0, (9, 5, 2), (30, 3))
    blocks = [centre[:2] for centre, _ in cover_scene(xyz, 'block', size, stride, np.random.default_rng(1), shifted)]
    shift = np.random.default_rng(1).uniform(0, stride, 2) if shifted else np.zeros(2)
    box = zip(xyz.min(0), xyz.max(0), shift, strict=False)
    xs, ys = (grid(low, high, size, stride, by, shifted) for low, high, by in box)
    centres = [np.array([x, y]) + size / 2 for x in xs for y in ys]
    reach = size / 2 * (1 + 1e-5)
    expected = [centre for centre in centres if (np.abs(xyz[:, :2] - centre).max(1) <= reach).any()]
    assert len(blocks) == len(expected) and np.allclose(blocks, expected)


@pytest.mark.parametrize('shifted', [False, True])
@pytest.mark.parametrize('crop', ['block', 'sphere'])
def test_empty_ground_is_not_searched(monkeypatch, crop, shifted):
    xyz = np.random.default_rng(0).uniform(0, (20, 20, 3), (500, 3))
    xyz = np.concatenate([xyz, [[-5e5, -5e6, 0], [1e30, 2e30, 0]]])
    looks = []
    monkeypatch.setattr(scene_crops, 'points_around', lambda *args: looks.append(0) or points_around(*args))
    crops = list(cover_scene(xyz, crop, 4.0, 2.0, np.random.default_rng(0), shifted))
    assert set(np.concatenate([found for _, found in crops])) == set(range(502))
    assert len(crops) <= len(looks) < 3 * 500


def test_degrees_are_told():
    metres = np.random.default_rng(0).uniform(0, 50, (100, 3))
    with pytest.warns(UserWarning, match=r'tile: its x and y span 0\.000\d+ x 0\.000\d+, and a crop is 12: are'):
        warn_unless_metres(metres * [1e-5, 1e-5, 1], 12, 'tile')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        warn_unless_metres(metres, 12, 'tile')
