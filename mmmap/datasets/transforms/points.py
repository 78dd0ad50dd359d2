"""Transforms of clouds: size, number of points, and augmentation.

Where a sample says ``has_normals=True``, columns 3 to 5 of its points are normals and turn with the coordinates.
"""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform

from mmmap.ops import farthest_point_sample
from mmmap.registry import TRANSFORMS

#: Keys with a row for each point.
PER_POINT = ('points', 'pts_semantic_mask')


def keep_points(results: dict, kept: np.ndarray) -> dict:
    """Keep some points of a sample in some order, with all that belongs to them.

    Args:
        results (dict): The sample, changed in place.
        kept (np.ndarray): Indices or a mask of the points.

    Returns:
        dict: The sample.
    """
    for key in PER_POINT:
        if key in results:
            results[key] = results[key][kept]
    return results


def _copy(points: np.ndarray) -> np.ndarray:
    """A copy, as the points of a sample may be those of the data set itself, in float32 but for float64."""
    return np.array(points, np.float64 if points.dtype == np.float64 else np.float32)


def _change_xyz(results: dict, xyz: np.ndarray) -> dict:
    points = _copy(results['points'])
    points[:, :3] = xyz
    results['points'] = points
    return results


def _change_frame(results: dict, matrix: np.ndarray, shift: np.ndarray | float = 0.0) -> dict:
    """Move points p to ``matrix @ p + shift``, and normals with them."""
    points = _copy(results['points'])
    points[:, :3] = points[:, :3] @ matrix.T + shift
    if results.get('has_normals'):
        # Those of a scaled surface: by the inverse transpose, to length 1 again.
        normals = points[:, 3:6] @ np.linalg.inv(matrix)
        points[:, 3:6] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    results['points'] = points
    return results


@TRANSFORMS.register_module()
class PointsNormalize(BaseTransform):
    """Move a cloud's centroid to the origin and its farthest point to distance 1.

    A cloud all of whose points lie in one place ends in the origin. Required and changed key: ``points``, which become
    float32.
    """

    def transform(self, results: dict) -> dict:
        """Normalise a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample, changed.
        """
        xyz = results['points'][:, :3].astype(np.float64)
        xyz = xyz - xyz.mean(axis=0)
        radius = np.linalg.norm(xyz, axis=1).max()
        points = np.array(results['points'], np.float32)
        # A cloud of one place has no size; what is left of its mean is rounding.
        points[:, :3] = 0 if (results['points'][:, :3] == results['points'][0, :3]).all() else xyz / radius
        results['points'] = points
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class PointsSample(BaseTransform):
    """Give a cloud a number of points.

    Required key: ``points``. Changed keys: ``points`` and ``pts_semantic_mask`` if there.

    Args:
        num_points (int): How many.
        method (str): ``'random'``, which draws points twice where there are too few; ``'fps'``, farthest point sampling
            from the first point on; ``'first'``, for data sets whose points are in random order. Defaults to 'random'.

    Raises:
        ValueError: If ``method`` is none of these, ``num_points`` is not positive, or a cloud has too few points for
            'fps' or 'first'.
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
        """Sample points.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample with ``num_points`` points.
        """
        points, count = results['points'], len(results['points'])
        if not count:
            raise ValueError(f'{results.get("lidar_path", "a cloud")} has no points')
        if self.method == 'random':
            return keep_points(results, self._draw(count))
        if count < self.num_points:
            name = results.get('lidar_path', 'a cloud')
            raise ValueError(
                f"{name} has {count} points, PointsSample needs {self.num_points}: method='random' draws some twice"
            )
        if self.method == 'first':
            return keep_points(results, np.arange(self.num_points))
        xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3], np.float32))
        return keep_points(results, farthest_point_sample(xyz[None], self.num_points)[0].numpy())

    def _draw(self, count: int) -> np.ndarray:
        """Every point as often as any other, but for one time."""
        whole, rest = divmod(self.num_points, count)
        return np.concatenate([np.tile(np.arange(count), whole), np.random.permutation(count)[:rest]])

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_points={self.num_points}, method={self.method!r})'


@TRANSFORMS.register_module()
class PointsScaleTranslate(BaseTransform):
    """Scale each axis of a cloud and shift the cloud, at random.

    The defaults are those that PointNet++'s successors share (Point-MAE, arXiv 2203.06604). Votes of a test use it too.

    Required and changed key: ``points``.

    Args:
        scale (Sequence[float]): Range of the three factors. Defaults to (2 / 3, 3 / 2).
        translate (float): Greatest shift along an axis. Defaults to 0.2.

    Raises:
        ValueError: If the range is none of positive factors, or the shift negative.
    """

    def __init__(self, scale: Sequence[float] = (2 / 3, 3 / 2), translate: float = 0.2) -> None:
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise ValueError(f'PointsScaleTranslate: scale={scale} must be (low, high), with 0 < low <= high')
        if translate < 0:
            raise ValueError(f'PointsScaleTranslate: translate={translate} is negative')
        self.scale = tuple(scale)
        self.translate = translate

    def transform(self, results: dict) -> dict:
        """Scale and shift a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample, changed.
        """
        shift = np.random.uniform(-self.translate, self.translate, 3)
        return _change_frame(results, np.diag(np.random.uniform(*self.scale, 3)), shift)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(scale={self.scale}, translate={self.translate})'


@TRANSFORMS.register_module()
class PointsRotate(BaseTransform):
    """Turn a cloud about an axis by a random angle.

    Required and changed key: ``points``.

    Args:
        axis (str): 'x', 'y' or 'z'. Defaults to 'z'.
        angle (float): Greatest angle to either side, in degrees. Defaults to 180.

    Raises:
        ValueError: If there is no such axis, or the angle is not from 0 to 180.
    """

    def __init__(self, axis: str = 'z', angle: float = 180.0) -> None:
        if axis not in ('x', 'y', 'z'):
            raise ValueError(f"PointsRotate: axis={axis!r} must be 'x', 'y' or 'z'")
        if not 0 <= angle <= 180:
            raise ValueError(f'PointsRotate: angle={angle} must be from 0 to 180 degrees')
        self.axis = axis
        self.angle = angle

    def transform(self, results: dict) -> dict:
        """Turn a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample, changed.
        """
        angle = np.deg2rad(np.random.uniform(-self.angle, self.angle))
        axis = 'xyz'.index(self.axis)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        matrix = np.eye(3)
        matrix[first, first] = matrix[second, second] = np.cos(angle)
        matrix[second, first] = np.sin(angle)
        matrix[first, second] = -matrix[second, first]
        return _change_frame(results, matrix)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(axis={self.axis!r}, angle={self.angle})'


@TRANSFORMS.register_module()
class PointsJitter(BaseTransform):
    """Move each point a little (PointNet, arXiv 1612.00593).

    Required and changed key: ``points``.

    Args:
        std (float): Standard deviation along an axis. Defaults to 0.01.
        clip (float): Greatest move along an axis. Defaults to 0.05.

    Raises:
        ValueError: If one of them is negative.
    """

    def __init__(self, std: float = 0.01, clip: float = 0.05) -> None:
        if min(std, clip) < 0:
            raise ValueError(f'PointsJitter: std={std}, clip={clip}: neither may be negative')
        self.std = std
        self.clip = clip

    def transform(self, results: dict) -> dict:
        """Move the points of a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample, changed.
        """
        xyz = results['points'][:, :3]
        moves = np.random.normal(0, self.std, xyz.shape).clip(-self.clip, self.clip)
        return _change_xyz(results, xyz + moves)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(std={self.std}, clip={self.clip})'


@TRANSFORMS.register_module()
class PointsDropout(BaseTransform):
    """Drop a random share of the points; copies of the first one take their places (PointNet++, arXiv 1706.02413).

    Required key: ``points``. Changed keys: ``points`` and ``pts_semantic_mask`` if there.

    Args:
        max_ratio (float): Greatest share. Defaults to 0.875.

    Raises:
        ValueError: If it is not from 0 to 1.
    """

    def __init__(self, max_ratio: float = 0.875) -> None:
        if not 0 <= max_ratio <= 1:
            raise ValueError(f'PointsDropout: max_ratio={max_ratio} must be from 0 to 1')
        self.max_ratio = max_ratio

    def transform(self, results: dict) -> dict:
        """Drop points of a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample, with as many points.
        """
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
        """Shuffle a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: The sample, in another order.
        """
        return keep_points(results, np.random.permutation(len(results['points'])))

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
