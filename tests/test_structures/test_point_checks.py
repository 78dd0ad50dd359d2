import numpy as np
import pytest

from mmmap.structures.point_checks import check_cloud, check_points, to_colours, to_floats

UTM = np.array([500_000.0, 5_000_000.0, 100.0])


@pytest.fixture
def xyz():
    return np.random.default_rng(0).uniform(0, 2, (500, 3))


def test_coordinates_far_from_the_origin_stay_float64(xyz):
    assert to_floats(xyz).dtype == to_floats(xyz + 10).dtype == np.float32
    assert to_floats(np.concatenate([xyz, xyz], axis=1)).shape == (500, 6)
    far = to_floats(xyz + UTM)
    assert far.dtype == np.float64 and np.array_equal(far, xyz + UTM)
    # A few points far from the others do not make these less.
    for strays in (1, 25):
        scene = xyz.copy()
        scene[:strays] -= UTM
        assert to_floats(scene - scene.min(0)).dtype == np.float64
    # Nothing is gained by float64 where the file has no more.
    assert to_floats((xyz + UTM).astype(np.float32)).dtype == np.float32
    assert to_floats(np.full((5, 3), 0.3)).dtype == np.float32
    # Millimetres as integers.
    assert np.ptp(to_floats((1000 * (xyz + UTM)).astype(np.int64)), axis=0).min() > 1900


@pytest.mark.parametrize(
    ('points', 'culprit'),
    [
        (np.zeros((0, 3)), 'room: it has no points'),
        (np.zeros(6), r'room: points have the shape \(6,\)'),
        (np.zeros((6, 2)), r'room: points have the shape \(6, 2\)'),
        (np.array([['a'] * 3]), 'room: points are of type <U1'),
        (np.array([[0, 0, 0], [0, 1, np.nan], [0, 0, np.inf]]), r'point 1 is not finite \(0, 1, nan\), 2 of 3 points'),
        (np.array([[0, 0, 0, 0], [0, 0, 0, -np.inf]]), 'room: point 1 is not finite'),
        (np.array([[0, 0, 0], [1e300, 0, 0]]), 'room: point 1 is not finite'),
    ],
)
def test_points_that_are_none(points, culprit):
    with pytest.raises(ValueError, match=culprit):
        check_points(points, 'room')


def test_clouds_of_one_place(xyz):
    check_cloud(xyz, 'room')
    check_cloud((1000 * xyz).astype(np.int32), 'room')
    check_points(xyz[[3, 3]], 'room')
    with pytest.raises(ValueError, match='room: all its 9 points lie in one place'):
        check_cloud(xyz[[3] * 9], 'room')


@pytest.mark.parametrize(
    ('rgb', 'rgb_max', 'expected'),
    [
        (np.array([[0, 128, 255]], np.uint8), None, [0, 128, 255]),
        (np.array([[0, 128, 255]], np.uint16), None, [0, 128, 255]),
        (np.array([[0, 257, 65535]], np.uint16), None, [0, 1, 255]),
        (np.array([[0, 257, 65535]], '>u2'), None, [0, 1, 255]),
        (np.array([[0, 127.5, 255]]), None, [0, 127.5, 255]),
        (np.zeros((1, 3)), None, [0, 0, 0]),
        (np.array([[0, 0.5, 1]]), 1, [0, 127.5, 255]),
        (np.array([[0, 0.5, 1]]), 255, [0, 0.5, 1]),
        (np.array([[0, 128, 255]], np.uint8), 510, [0, 64, 127.5]),
        (np.array([[0, 51, 102]], np.int64), 1023, [0, 51 * 255 / 1023, 102 * 255 / 1023]),
    ],
)
def test_colours_count_to_255(rgb, rgb_max, expected):
    np.testing.assert_allclose(to_colours(rgb, 'rgb', rgb_max)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('rgb', 'rgb_max', 'culprit'),
    [
        (np.array([[0, 0.5, 1]]), None, 'room goes up to 1: .* set rgb_max=1'),
        (np.array([[0, 0.5, 1.0001]]), None, 'room goes up to 1.0001: .* set rgb_max=1'),
        (np.array([[0, 0, 1023]], np.uint16), None, 'room: blue of point 0 is 1023, not from 0 to 255; set rgb_max'),
        (np.array([[0, 0, 0], [0, 0, 256]]), None, 'room: blue of point 1 is 256, not from 0 to 255; set rgb_max'),
        (np.array([[0, 0, 65535.0]]), None, 'room: blue of point 0 is 65535'),
        (np.array([[-1, 0, 0]]), None, 'room: red of point 0 is -1'),
        (np.array([[9, np.nan, 0]]), None, 'room: green of point 0 is nan'),
        (np.array([[0, 0, 1.5]]), 1, 'room: blue of point 0 is 1.5, not from 0 to 1'),
        (np.zeros((2, 4), np.uint8), None, r'room has the shape \(2, 4\) .*store the alpha channel under another name'),
        (np.zeros(2), None, r'room has the shape \(2,\)'),
    ],
)
def test_colours_that_are_none(rgb, rgb_max, culprit):
    with pytest.raises(ValueError, match=culprit):
        to_colours(rgb, 'room', rgb_max)
