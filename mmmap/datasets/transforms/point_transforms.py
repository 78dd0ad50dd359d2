"""Transforms of clouds: size, number of points, and augmentation.

If a sample has ``has_normals=True``, columns 3 to 5 of its points are normals. They turn with the coordinates.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmmap.ops import farthest_point_sample
from mmmap.registry import TRANSFORMS


def keep_points(results: dict, kept: np.ndarray) -> dict:
    """Select points of a sample, with their labels, in place.

    Args:
        results (dict): The sample.
        kept (np.ndarray): Indices or a mask of the points.

    Returns:
        dict: The same sample.
    """
    for key in ('points', 'pts_semantic_mask'):
        if key in results:
            results[key] = results[key][kept]
    return results


def _copy(points: np.ndarray) -> np.ndarray:
    """A copy in float32, or in float64 if the points are. The points of a sample may belong to the data set."""
    return np.array(points, np.float64 if points.dtype == np.float64 else np.float32)


def _move(results: dict, matrix: np.ndarray, shift: np.ndarray | float = 0.0) -> dict:
    """Move points p to ``matrix @ p + shift``, and normals with them."""
    points = _copy(results['points'])
    points[:, :3] = points[:, :3] @ matrix.T + shift
    if results.get('has_normals'):
        # Normals of a scaled surface change by the inverse transpose. Their length is 1 again afterwards.
        normals = points[:, 3:6] @ np.linalg.inv(matrix)
        points[:, 3:6] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    results['points'] = points
    return results


@TRANSFORMS.register_module()
class PointsNormalize(BaseTransform):
    """Move the centroid of a cloud to the origin and scale its farthest point to distance 1.

    If all points lie in one place, they move to the origin. Required and changed key: ``points``, which become float32.
    """

    def transform(self, results: dict) -> dict:
        """Normalise a sample."""
        xyz = results['points'][:, :3].astype(np.float64)
        xyz = xyz - xyz.mean(axis=0)
        radius = np.linalg.norm(xyz, axis=1).max()
        points = np.array(results['points'], np.float32)
        # Equal points have no radius but a rounding error.
        points[:, :3] = 0 if (results['points'][:, :3] == results['points'][0, :3]).all() else xyz / radius
        results['points'] = points
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class PointsSample(BaseTransform):
    """Sample a fixed number of points.

    Required key: ``points``. Changed keys: ``points`` and ``pts_semantic_mask`` if there.

    Args:
        num_points (int): Points of a sample afterwards.
        method (str): ``'random'``: a random choice; if there are too few points, some are drawn again. ``'fps'``:
            farthest point sampling that starts at the first point. ``'first'``: the first points, for data sets whose
            points are in random order. Defaults to 'random'.

    Raises:
        ValueError: If ``method`` is unknown, ``num_points`` is not positive, or a cloud has too few points for 'fps' or
            'first'.
    """

    METHODS = ('random', 'fps', 'first')

    def __init__(self, num_points: int, method: str = 'random') -> None:
        if method not in self.METHODS:
            raise ValueError(f'PointsSample: method={method!r} must be one of {self.METHODS}')
        if num_points < 1:
            raise ValueError(f'PointsSample: num_points={num_points} must be positive')
        self.num_points = num_points
        self.method = method

    def transform(self, results: dict) -> dict:
        """Sample the points of a sample."""
        points, count = results['points'], len(results['points'])
        name = results.get('lidar_path', 'a cloud')
        if not count:
            raise ValueError(f'{name} has no points')
        if self.method == 'random':
            # Each point is drawn equally often, or once more than others.
            whole, rest = divmod(self.num_points, count)
            drawn = [np.tile(np.arange(count), whole), np.random.permutation(count)[:rest]]
            return keep_points(results, np.concatenate(drawn))
        if count < self.num_points:
            raise ValueError(
                f"{name} has {count} points, PointsSample needs {self.num_points}: method='random' draws some twice"
            )
        if self.method == 'first':
            return keep_points(results, np.arange(self.num_points))
        xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3], np.float32))
        return keep_points(results, farthest_point_sample(xyz[None], self.num_points)[0].numpy())

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_points={self.num_points}, method={self.method!r})'


@TRANSFORMS.register_module()
class PointsScaleTranslate(BaseTransform):
    """Scale each axis of a cloud and shift the cloud, at random.

    The defaults are common to the successors of PointNet++ (Point-MAE, arXiv 2203.06604). Test-time voting uses this
    transform too. Required and changed key: ``points``.

    Args:
        scale (Sequence[float]): Range of the three factors. Defaults to (2 / 3, 3 / 2).
        translate (float): Largest shift along an axis. Defaults to 0.2.

    Raises:
        ValueError: If ``scale`` is not a range of positive factors, or ``translate`` is negative.
    """

    def __init__(self, scale: Sequence[float] = (2 / 3, 3 / 2), translate: float = 0.2) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f'PointsScaleTranslate: scale={scale} must be (low, high), with 0 < low <= high')
        if translate < 0:
            raise ValueError(f'PointsScaleTranslate: translate={translate} is negative')
        self.scale = tuple(scale)
        self.translate = translate

    def transform(self, results: dict) -> dict:
        """Scale and shift a sample."""
        shift = np.random.uniform(-self.translate, self.translate, 3)
        low, high = self.scale
        return _move(results, np.diag(np.random.uniform(low, high, 3)), shift)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, translate={self.translate})'


@TRANSFORMS.register_module()
class PointsRotate(BaseTransform):
    """Rotate a cloud about an axis by a random angle.

    Required and changed key: ``points``.

    Args:
        axis (str): 'x', 'y' or 'z'. Defaults to 'z'.
        angle (float): Largest angle in either direction, in degrees, from 0 to 180. Defaults to 180.

    Raises:
        ValueError: If ``axis`` is unknown or ``angle`` is out of range.
    """

    def __init__(self, axis: str = 'z', angle: float = 180.0) -> None:
        if axis not in ('x', 'y', 'z'):
            raise ValueError(f"PointsRotate: axis={axis!r} must be 'x', 'y' or 'z'")
        if not 0 <= angle <= 180:
            raise ValueError(f'PointsRotate: angle={angle} must be from 0 to 180 degrees')
        self.axis = axis
        self.angle = angle

    def transform(self, results: dict) -> dict:
        """Rotate a sample."""
        angle = np.deg2rad(np.random.uniform(-self.angle, self.angle))
        axis = 'xyz'.index(self.axis)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[second, first] = np.sin(angle)
        matrix[first, second] = -matrix[second, first]
        return _move(results, matrix)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(axis={self.axis!r}, angle={self.angle})'


@TRANSFORMS.register_module()
class PointsJitter(BaseTransform):
    """Move each point by normal noise (PointNet, arXiv 1612.00593).

    Required and changed key: ``points``.

    Args:
        std (float): Standard deviation along an axis. Defaults to 0.01.
        clip (float): Largest move along an axis. Defaults to 0.05.

    Raises:
        ValueError: If one of them is negative.
    """

    def __init__(self, std: float = 0.01, clip: float = 0.05) -> None:
        if min(std, clip) < 0:
            raise ValueError(f'PointsJitter: std={std}, clip={clip}: neither may be negative')
        self.std = std
        self.clip = clip

    def transform(self, results: dict) -> dict:
        """Move the points of a sample."""
        xyz, points = results['points'][:, :3], _copy(results['points'])
        points[:, :3] = xyz + np.random.normal(0, self.std, xyz.shape).clip(-self.clip, self.clip)
        results['points'] = points
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(std={self.std}, clip={self.clip})'


@TRANSFORMS.register_module()
class PointsDropout(BaseTransform):
    """Replace a random share of the points by copies of the first point (PointNet++, arXiv 1706.02413).

    Required key: ``points``. Changed keys: ``points`` and ``pts_semantic_mask`` if there.

    Args:
        max_ratio (float): Largest share, from 0 to 1. Defaults to 0.875.

    Raises:
        ValueError: If ``max_ratio`` is out of range.
    """

    def __init__(self, max_ratio: float = 0.875) -> None:
        if not 0 <= max_ratio <= 1:
            raise ValueError(f'PointsDropout: max_ratio={max_ratio} must be from 0 to 1')
        self.max_ratio = max_ratio

    def transform(self, results: dict) -> dict:
        """Drop points of a sample. Its number of points stays the same."""
        count = len(results['points'])
        dropped = np.random.rand(count) < np.random.uniform(0, self.max_ratio)
        return keep_points(results, np.where(dropped, 0, np.arange(count)))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(max_ratio={self.max_ratio})'


@TRANSFORMS.register_module()
class PointsShuffle(BaseTransform):
    """Put the points of a cloud into a random order.

    Required key: ``points``. Changed keys: ``points`` and ``pts_semantic_mask`` if there.
    """

    def transform(self, results: dict) -> dict:
        """Shuffle a sample."""
        return keep_points(results, np.random.permutation(len(results['points'])))

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
