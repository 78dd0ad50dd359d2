"""Transforms of scenes: loading, features, colours, voxels and crops."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmmap.registry import TRANSFORMS
from mmmap.structures.islands import find_islands, from_corner, island_boxes
from mmmap.structures.points import check_cloud, to_floats
from mmmap.structures.scene_crops import CROPS, draw_of_voxels, draw_points, to_crop_frame, voxel_ids, warn_if_tiny
from mmmap.structures.scene_files import IGNORED, class_indices, read_scene

from .points import keep_points


def _append(results: dict, name: str, values: np.ndarray) -> None:
    """Add a feature (N, C) to the points, and where it is to ``feature_columns``."""
    start, dtype = results['points'].shape[1], results['points'].dtype
    results['points'] = np.concatenate([results['points'], values.astype(dtype)], axis=1)
    results['feature_columns'][name] = (start, results['points'].shape[1])


def _columns(results: dict, name: str, who: BaseTransform) -> slice:
    try:
        return slice(*results['feature_columns'][name])
    except KeyError:
        known = ', '.join(results.get('feature_columns', ())) or 'none'
        raise ValueError(f'{type(who).__name__}: the points have no feature {name!r}, but {known}') from None


@TRANSFORMS.register_module()
class LoadScene(BaseTransform):
    """Load a scene of :class:`SceneDataset`.

    Required key: ``lidar_path``. Used if there: ``class_labels`` and ``unknown_labels`` of the data set. Added keys:
    ``points`` ((N, 3 + F), xyz from the corner of least x, y and z of the scene's largest island, see
    :func:`~mmmap.structures.islands.from_corner`; float32, or float64 where float32 would move the points),
    ``pts_semantic_mask`` ((N,) int64, 255 for points of no class; not for a scene without labels), ``feature_columns``
    (first and last + 1 column of a feature).

    Args:
        features (Sequence[str]): Arrays of the file that follow the coordinates, in this order: 'rgb', from 0 to 255,
            'intensity' or others. Defaults to ().
        in_memory (bool): Keep each scene once it was read, in each worker: for a few scenes. Defaults to False.
        rgb_max (float, optional): Full brightness of the colours in the files, such as 1; see
            :func:`~mmmap.structures.points.to_colours`. Defaults to None.

    Raises:
        ValueError: If the file is damaged, has no such array, or a point, colour or label of it is none.
    """

    def __init__(self, features: Sequence[str] = (), in_memory: bool = False, rgb_max: float | None = None) -> None:
        self.features = tuple(features)
        self.in_memory = in_memory
        self.rgb_max = rgb_max
        self._scenes = {}

    def _read(self, path: str) -> dict[str, np.ndarray]:
        if path in self._scenes:
            return self._scenes[path]
        scene = read_scene(path, 'rgb' in self.features, self.rgb_max)
        if self.in_memory:
            self._scenes[path] = scene
        return scene

    def transform(self, results: dict) -> dict:
        """Load the scene of a sample.

        Args:
            results (dict): A sample with ``lidar_path``.

        Returns:
            dict: The sample with its points.
        """
        path = results['lidar_path']
        scene = self._read(path)
        xyz = scene['xyz']
        results['points'] = to_floats(from_corner(xyz))
        results['feature_columns'] = {}
        for name in self.features:
            if name not in scene:
                raise ValueError(f'{path} has no {name!r}, but {", ".join(scene)}')
            if scene[name].dtype.kind not in 'fiub':
                raise ValueError(f'{path}: its array {name} is of type {scene[name].dtype}, not numbers')
            _append(results, name, scene[name].reshape(len(xyz), -1))
        check_cloud(results['points'], f'{path}: {", ".join(("xyz", *self.features))}')
        if 'label' in scene:
            classes = results.get('class_labels')
            # Raw labels have others beside those of the classes. Indices have none but 255.
            unknown = results.get('unknown_labels') or ('error' if classes is None else 'ignore')
            results['pts_semantic_mask'] = class_indices(
                scene['label'], range(IGNORED) if classes is None else classes, unknown, f'{path}: label'
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(features={self.features}, in_memory={self.in_memory}, rgb_max={self.rgb_max})'


@TRANSFORMS.register_module()
class SceneFeatures(BaseTransform):
    """Append features that tell where in the scene, or in its own island of it, a point is.

    Required keys: ``points``, ``feature_columns``, of a whole scene. Changed keys: both.

    Args:
        features (Sequence[str]): 'height', z over the lowest point, in metres, one column; 'position', x, y and z from
            0 to 1 over the scene, three columns. Coordinates, colours and positions are the nine channels of PointNet
            (arXiv 1612.00593, section 5.2).

    Raises:
        ValueError: If there is no such feature.
    """

    def __init__(self, features: Sequence[str]) -> None:
        if unknown := set(features) - {'height', 'position'}:
            raise ValueError(f"SceneFeatures makes 'height' and 'position', not {min(unknown)!r}")
        self.features = tuple(features)

    def transform(self, results: dict) -> dict:
        """Append the features.

        Args:
            results (dict): A sample with ``points`` and ``feature_columns``.

        Returns:
            dict: The sample with more columns.
        """
        xyz = results['points'][:, :3]
        islands = find_islands(xyz)
        low, high = island_boxes(xyz, islands)
        for name in self.features:
            if name == 'height':
                _append(results, name, xyz[:, 2:] - low[islands, 2:])
            else:
                # A scene without an extent along an axis is at 0 of it.
                extent = np.where(high > low, high - low, 1)
                _append(results, name, (xyz - low[islands]) / extent[islands])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(features={self.features})'


@TRANSFORMS.register_module()
class PointFeatureNormalize(BaseTransform):
    """Subtract a mean from a feature and divide it by a standard deviation.

    Required keys: ``points``, ``feature_columns``. Changed key: ``points``.

    Args:
        feature (str): Which one, such as 'rgb'.
        mean (float | Sequence[float]): For all its columns or each of them. Defaults to 0.
        std (float | Sequence[float]): For all its columns or each of them. Defaults to 255.
    """

    def __init__(self, feature: str, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 255.0) -> None:
        self.feature = feature
        self.mean = mean
        self.std = std

    def transform(self, results: dict) -> dict:
        """Normalise the feature.

        Args:
            results (dict): A sample with ``points`` and ``feature_columns``.

        Returns:
            dict: The sample, changed.
        """
        columns = _columns(results, self.feature, self)
        values = results['points'][:, columns]
        results['points'][:, columns] = (values - np.float32(self.mean)) / np.float32(self.std)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(feature={self.feature!r}, mean={self.mean}, std={self.std})'


class _ColourTransform(BaseTransform):
    """Base of what changes colours from 0 to 255, with a probability."""

    def __init__(self, prob: float) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'{type(self).__name__}: prob={prob} is not from 0 to 1')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Change the colours of a sample, by chance.

        Args:
            results (dict): A sample with ``points`` and the feature 'rgb'.

        Returns:
            dict: The sample, perhaps changed.
        """
        columns = _columns(results, 'rgb', self)
        if np.random.rand() < self.prob:
            results['points'][:, columns] = self._change(results['points'][:, columns])
        return results

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f'{type(self).__name__}(prob={self.prob})'


@TRANSFORMS.register_module()
class PointsColorAutoContrast(_ColourTransform):
    """Stretch each colour channel to 0 to 255 and blend the result, by a random weight, with the original.

    Args:
        prob (float): How often. Defaults to 0.2.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        low, high = rgb.min(0), rgb.max(0)
        stretched = (rgb - low) * (255 / np.maximum(high - low, 1))
        weight = np.float32(np.random.rand())
        return (1 - weight) * rgb + weight * stretched


@TRANSFORMS.register_module()
class PointsColorDrop(_ColourTransform):
    """Set the colours of all points to 0, so that the model also learns from shape alone.

    Args:
        prob (float): How often. Defaults to 0.2.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        return np.zeros_like(rgb)


@TRANSFORMS.register_module()
class PointsColorJitter(_ColourTransform):
    """Add normal noise to each point's colours, which stay from 0 to 255.

    Args:
        std (float): Its standard deviation, in levels of 255. Defaults to 12.75.
        prob (float): How often. Defaults to 0.95.
    """

    def __init__(self, std: float = 12.75, prob: float = 0.95) -> None:
        super().__init__(prob)
        self.std = std

    def _change(self, rgb: np.ndarray) -> np.ndarray:
        return (rgb + self.std * np.random.randn(*rgb.shape)).clip(0, 255)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(std={self.std}, prob={self.prob})'


@TRANSFORMS.register_module()
class VoxelSample(BaseTransform):
    """Keep a random point of each voxel.

    Required key: ``points``. Changed keys: ``points``, ``pts_semantic_mask``.

    Args:
        voxel_size (float): Side of a voxel, in metres.
    """

    def __init__(self, voxel_size: float) -> None:
        if voxel_size <= 0:
            raise ValueError(f'VoxelSample: voxel_size={voxel_size} is not positive')
        self.voxel_size = voxel_size

    def transform(self, results: dict) -> dict:
        """Thin out a sample.

        Args:
            results (dict): A sample with ``points``.

        Returns:
            dict: The sample with fewer points.
        """
        ids = voxel_ids(results['points'][:, :3], self.voxel_size)
        keep_points(results, draw_of_voxels(ids, np.random))
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(voxel_size={self.voxel_size})'


@TRANSFORMS.register_module()
class SceneCrop(BaseTransform):
    """Cut a number of points out of a scene, around a random centre, for training.

    Their coordinates then count from the centre (z of a block from the scene's floor) in units of ``size``, as
    :class:`SceneSegmentor` gives them in a test. Of more points some are drawn, of fewer some are drawn twice.

    Required keys: ``points``; ``pts_semantic_mask`` with ``centre='balanced'``. Changed keys: both.

    Args:
        crop (str): ``'block'``, a column from floor to ceiling with a square plan, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere, in metres.
        num_points (int): Points of the crop.
        centre (str): ``'uniform'``, a random point of the scene, or ``'balanced'``, a random point of a random one of
            the classes in the scene. Defaults to 'uniform'.

    Raises:
        ValueError: If ``crop`` or ``centre`` is none of these, or a number is not positive.
    """

    def __init__(self, crop: str, size: float, num_points: int, centre: str = 'uniform') -> None:
        if crop not in CROPS:
            raise ValueError(f"SceneCrop: crop must be 'block' or 'sphere', got {crop!r}")
        if centre not in ('uniform', 'balanced'):
            raise ValueError(f"SceneCrop: centre must be 'uniform' or 'balanced', got {centre!r}")
        if size <= 0 or num_points < 1:
            raise ValueError(f'SceneCrop: size={size}, num_points={num_points}: both must be positive')
        self.crop = crop
        self.size = size
        self.num_points = num_points
        self.centre = centre

    def _draw_centre(self, results: dict) -> int:
        if self.centre == 'balanced':
            if 'pts_semantic_mask' not in results:
                raise ValueError(f"{results.get('lidar_path', 'a scene')} has no labels, which centre='balanced' needs")
            labels = results['pts_semantic_mask']
            classes = np.setdiff1d(labels, IGNORED)
            # A scene without a labelled point teaches nothing, whatever the crop.
            if len(classes):
                return np.random.choice(np.flatnonzero(labels == np.random.choice(classes)))
        return np.random.randint(len(results['points']))

    def transform(self, results: dict) -> dict:
        """Crop a sample.

        Args:
            results (dict): A sample with the ``points`` of a scene.

        Returns:
            dict: The sample with ``num_points`` points, float32.
        """
        xyz = results['points'][:, :3]
        warn_if_tiny(xyz, self.size, results.get('lidar_path', 'a scene'))
        index, islands = self._draw_centre(results), find_islands(xyz)
        island = np.flatnonzero(islands == islands[index])
        centre, floor = xyz[index], xyz[island, 2].min()
        # For one crop a look at every point is faster than to build a tree.
        offsets = np.abs(xyz[island] - centre)
        if self.crop == 'block':
            inside = offsets[:, :2].max(1) <= self.size / 2
        else:
            inside = (offsets**2).sum(1) <= self.size**2
        keep_points(results, np.random.permutation(draw_points(island[inside], self.num_points, np.random)))
        frame = to_crop_frame(results['points'][:, :3], centre, self.crop, self.size, floor)
        results['points'] = results['points'].astype(np.float32)
        results['points'][:, :3] = frame
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(crop={self.crop!r}, size={self.size}, num_points={self.num_points}, '
            f'centre={self.centre!r})'
        )
