"""Transforms of clouds: numbers, normals and labels go along, and the data set's own points stay as they are."""

import numpy as np
import pytest

from mmmap.datasets import (
    PointsDropout,
    PointsJitter,
    PointsNormalize,
    PointsRotate,
    PointsSample,
    PointsScaleTranslate,
    PointsShuffle,
)


@pytest.fixture(autouse=True)
def numpy_seed():
    np.random.seed(0)


def sample(count=50, features=0, **keys):
    """A cloud whose labels are the indices of its points."""
    points = np.random.default_rng(0).normal(size=(count, 3 + features)).astype('float32')
    return dict(points=points, pts_semantic_mask=np.arange(count), lidar_path='chair.txt', **keys)


def test_normalize():
    cloud = sample(features=1)
    cloud['points'][:, :3] += 100
    features = cloud['points'][:, 3].copy()
    points = PointsNormalize()(cloud)['points']
    assert points.dtype == np.float32
    assert np.abs(points[:, :3].mean(0)).max() < 1e-6
    assert np.linalg.norm(points[:, :3], axis=1).max() == pytest.approx(1)
    assert np.array_equal(points[:, 3], features)
    assert not PointsNormalize()(dict(points=np.ones((4, 3), 'float32')))['points'].any()
    # The mean of equal numbers may be another one.
    assert not PointsNormalize()(dict(points=np.full((1000, 3), 0.1)))['points'].any()


@pytest.mark.parametrize('method', PointsSample.METHODS)
def test_sample(method):
    before = sample()
    after = PointsSample(20, method)(dict(before))
    labels = after['pts_semantic_mask']
    assert after['points'].shape == (20, 3) and len(set(labels)) == 20
    assert np.array_equal(after['points'], before['points'][labels])
    assert (method == 'first') == np.array_equal(labels, np.arange(20))
    if method == 'fps':
        # The second point is the farthest from the first.
        assert labels[1] == np.linalg.norm(before['points'] - before['points'][0], axis=1).argmax()


def test_sample_of_too_few():
    labels = PointsSample(120)(sample())['pts_semantic_mask']
    counts = np.bincount(labels, minlength=50)
    assert len(labels) == 120 and counts.min() == 2 and counts.max() == 3
    for method in ('fps', 'first'):
        with pytest.raises(ValueError, match=r'chair.txt has 50 points, PointsSample needs 51'):
            PointsSample(51, method)(sample())


def test_scale_translate():
    before = sample()['points']
    # x' = a x + b for each axis by itself.
    for axis, after in enumerate(PointsScaleTranslate((0.5, 2.0), 0.3)(sample())['points'].T):
        factor, shift = np.polyfit(before[:, axis], after, 1)
        assert 0.5 <= factor <= 2 and abs(shift) <= 0.3
        np.testing.assert_allclose(after, factor * before[:, axis] + shift, atol=1e-5)
    still = PointsScaleTranslate((1, 1), 0)(sample())['points']
    np.testing.assert_allclose(still, before, atol=1e-6)


@pytest.mark.parametrize('axis', ['x', 'y', 'z'])
def test_rotate(axis):
    before, after = sample()['points'], PointsRotate(axis)(sample())['points']
    column = 'xyz'.index(axis)
    np.testing.assert_allclose(after[:, column], before[:, column], atol=1e-6)
    np.testing.assert_allclose(after @ after.T, before @ before.T, atol=1e-4)
    # A rotation, not a reflection; the least squares solution is exact.
    matrix = np.linalg.lstsq(before, after, rcond=None)[0]
    assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-4)
    assert np.abs(after - before).max() > 0.1
    turned = PointsRotate(axis, angle=1.0)(sample())['points']
    assert 0 < np.abs(turned - before).max() <= np.linalg.norm(before, axis=1).max() * np.deg2rad(1)


@pytest.mark.parametrize('transform', [PointsRotate('x'), PointsScaleTranslate((0.5, 2.0))], ids=['rotate', 'scale'])
def test_normals_stay_normal_to_their_surface(transform):
    """Of points in a plane every difference is at right angles to the normal, before and after."""
    rng = np.random.default_rng(0)
    normal = np.array([0.6, 0.0, 0.8])
    edges = np.array([[0.8, 0.0, -0.6], [0.0, 1.0, 0.0]])
    points = np.concatenate([rng.normal(size=(20, 2)) @ edges, np.tile(normal, (20, 1))], axis=1).astype('float32')
    after = transform(dict(points=points, has_normals=True))['points']
    np.testing.assert_allclose(np.linalg.norm(after[:, 3:], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose((after[1:, :3] - after[0, :3]) @ after[0, 3:], 0, atol=1e-5)
    assert np.abs(after[:, 3:] - points[:, 3:]).max() > 1e-3
    # Columns that are something else stay.
    assert np.array_equal(transform(dict(points=points))['points'][:, 3:], points[:, 3:])


def test_jitter():
    before, after = sample(features=1)['points'], PointsJitter(0.1, 0.15)(sample(features=1))['points']
    moves = after - before
    assert not moves[:, 3].any()
    assert 0.05 < moves[:, :3].std() < 0.12 and np.abs(moves).max() <= 0.15 + 1e-6


def test_dropout():
    before, after = sample(1000), PointsDropout()(sample(1000))
    labels = after['pts_semantic_mask']
    assert np.array_equal(after['points'], before['points'][labels])
    dropped = labels != np.arange(1000)
    assert 0 < dropped.mean() < 0.9 and not labels[dropped].any()
    assert np.array_equal(PointsDropout(0)(sample())['pts_semantic_mask'], np.arange(50))


def test_shuffle():
    before, after = sample(), PointsShuffle()(sample())
    labels = after['pts_semantic_mask']
    assert sorted(labels) == list(range(50)) != list(labels)
    assert np.array_equal(after['points'], before['points'][labels])


@pytest.mark.parametrize(
    'transform',
    [
        PointsDropout(),
        PointsJitter(),
        PointsNormalize(),
        PointsRotate(),
        PointsSample(20),
        PointsScaleTranslate(),
        PointsShuffle(),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_the_data_sets_points_are_not_changed(transform):
    given = sample()
    points, labels = given['points'], given['pts_semantic_mask']
    kept = points.copy(), labels.copy()
    transform(given)
    assert np.array_equal(points, kept[0]) and np.array_equal(labels, kept[1])
    assert repr(transform).startswith(type(transform).__name__ + '(')


@pytest.mark.parametrize(
    ('make', 'culprit'),
    [
        (lambda: PointsSample(0), 'num_points=0'),
        (lambda: PointsSample(8, 'best'), "method='best'"),
        (lambda: PointsScaleTranslate((2, 1)), r'scale=\(2, 1\)'),
        (lambda: PointsScaleTranslate(translate=-1), 'translate=-1'),
        (lambda: PointsRotate('w'), "axis='w'"),
        (lambda: PointsRotate(angle=360), 'angle=360'),
        (lambda: PointsJitter(std=-1), 'std=-1'),
        (lambda: PointsDropout(2), 'max_ratio=2'),
    ],
)
def test_options_that_make_no_sense(make, culprit):
    with pytest.raises(ValueError, match=culprit):
        make()
