import numpy as np
import pytest

from mmmap.structures.islands import find_islands, number_rows, shift_to_corner, unique_rows
from mmmap.structures.scene_crops import voxel_ids

#: What may lie far from a tile at (500000, 5000000, 120).
STRAYS = {
    'the origin of UTM': [[0, 0, 0]],
    'below': [[500010, 5000010, -3000]],
    'above': [[500010, 5000010, 90000]],
    'huge': [[1e30, -1e30, 1e30]],
    'several': [[0, 0, 0], [1e7, 5000000, 120], [500000, -1e12, 120], [500300, 5000000, 120]],
}


@pytest.fixture
def tile():
    """A tile of 50 m in UTM, 800 points, float64."""
    return np.random.default_rng(0).uniform((500000, 5000000, 120), (500050, 5000050, 130), (800, 3))


def test_a_gap_of_two_cells_parts_and_one_of_less_than_a_cell_does_not(tile):
    def parts(gap):
        return find_islands(np.concatenate([tile, tile[:300] + np.array([50 + gap, 0, 0])]))

    # Wherever the cells begin.
    for shift in np.linspace(0, 20, 7):
        tile[:, 0] += shift
        assert not parts(15).any()
        assert np.array_equal(parts(45), np.repeat([0, 1], [800, 300]))
    # The larger part comes first, wherever it is in the file.
    assert np.array_equal(find_islands(np.concatenate([tile[:10] - 1000, tile])), np.repeat([1, 0], [10, 800]))


def test_cells_grow_with_the_scene():
    # In millimetres: no point is within 20 of another one.
    room = np.random.default_rng(0).uniform(0, (6000, 4000, 2500), (3000, 3))
    assert not find_islands(room).any()


@pytest.mark.parametrize('place', [1.0, 1e6, 1e30])
@pytest.mark.parametrize('count', [1, 2, 50])
def test_points_in_one_place(place, count):
    xyz = np.full((count, 3), place)
    assert not find_islands(xyz).any()
    assert not voxel_ids(xyz, 0.1).any()
    assert not shift_to_corner(xyz).any()


@pytest.mark.parametrize('name', STRAYS)
def test_stray_points_move_no_others(tile, name):
    alone = shift_to_corner(tile)
    assert np.abs(alone - (tile - tile.min(0))).max() < 1e-5
    together = shift_to_corner(np.concatenate([STRAYS[name], tile]))
    assert np.array_equal(together[len(STRAYS[name]) :], alone)
    assert (find_islands(together)[len(STRAYS[name]) :] == 0).all()


def test_islands_far_away_keep_their_shape(tile):
    other = tile[:500] + np.array([3e6, -2e6, 0])
    moved = shift_to_corner(np.concatenate([tile, other]))[800:]
    assert np.abs((moved - moved[0]) - (other - other[0])).max() < 1e-3


@pytest.mark.parametrize('name', STRAYS)
def test_voxels_of_others_stay(tile, name):
    alone, together = voxel_ids(tile, 0.4), voxel_ids(np.concatenate([tile, STRAYS[name]]), 0.4)
    assert np.array_equal(together[:800], alone)
    assert len(set(together[800:]) - set(alone)) == len(STRAYS[name])


@pytest.mark.parametrize('scale', [1, 1e4, 1e25])
def test_rows_against_numpy(scale):
    # Numbers whose product is small, has no table, and fits no integer.
    rows = np.random.default_rng(0).integers(-3, 4, (400, 3)) * np.float64(scale)
    expected, ids = np.unique(rows, axis=0, return_inverse=True)
    assert np.array_equal(number_rows(list(rows.T)), ids.reshape(-1))
    assert np.array_equal(unique_rows(list(rows.T)), expected)
