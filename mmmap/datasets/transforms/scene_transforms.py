"""Transforms of scenes: loading, features of the place of a point, voxels and crops."""

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mmmap.registry import TRANSFORMS
from mmmap.structures.islands import find_islands, island_boxes, shift_to_corner
from mmmap.structures.point_checks import check_cloud, to_floats
from mmmap.structures.scene_crops import (
    CROPS,
    draw_point_per_voxel,
    draw_points,
    to_crop_frame,
    voxel_ids,
    warn_unless_metres,
)
from mmmap.structures.scene_files import IGNORED, class_indices, read_scene

from .point_features import append_feature
from .point_transforms import keep_points


@TRANSFORMS.register_module()
class LoadScene(BaseTransform):
    """Load a scene of :class:`SceneDataset`.

    Required key: ``lidar_path``. Used if there: ``class_labels`` and ``unknown_labels`` of the data set. Added keys:

    - ``points`` (N, 3 + F): xyz, counted from the lowest corner of the scene's largest island
      (:func:`~mmmap.structures.islands.shift_to_corner`), then the features. float32, or float64 where float32 would
      change the shape of the scene.
    - ``pts_semantic_mask`` (N,) int64: classes, 255 for points without a class. Only if the scene has labels.
    - ``feature_columns``: for each feature its first column and its last column plus 1.

    Args:
        features (Sequence[str]): Arrays of the file that follow the coordinates, in this order: 'rgb' (from 0 to 255),
            'intensity' or others. Defaults to ().
        in_memory (bool): Whether each worker keeps every scene after reading it. For a few scenes. Defaults to False.
        rgb_max (float, optional): Full brightness of the colours in the files, such as 1. See
            :func:`~mmmap.structures.point_checks.to_colours`. Defaults to None.

    Raises:
        ValueError: If the file is damaged, lacks an array, or has invalid points, colours or labels.
    """

    def __init__(self, features: Sequence[str] = (), in_memory: bool = False, rgb_max: float | None = None) -> None:
        self.features = tuple(features)
        self.in_memory = in_memory
        self.rgb_max = rgb_max
        self._scenes: dict[str, dict[str, np.ndarray]] = {}

    def _read(self, path: str) -> dict[str, np.ndarray]:
        if path in self._scenes:
            return self._scenes[path]
        scene = read_scene(path, 'rgb' in self.features, self.rgb_max)
        if self.in_memory:
            self._scenes[path] = scene
        return scene

    def transform(self, results: dict) -> dict:
        """Load the scene of a sample."""
        path = results['lidar_path']
        scene = self._read(path)
        xyz = scene['xyz']
        results['points'] = to_floats(shift_to_corner(xyz))
        results['feature_columns'] = {}
        for name in self.features:
            if name not in scene:
                raise ValueError(f'{path} has no {name!r}, but {", ".join(scene)}')
            if scene[name].dtype.kind not in 'fiub':
                raise ValueError(f'{path}: its array {name} is of type {scene[name].dtype}, not numbers')
            append_feature(results, name, scene[name].reshape(len(xyz), -1))
        check_cloud(results['points'], f'{path}: {", ".join(("xyz", *self.features))}')
        if 'label' in scene:
            classes = results.get('class_labels')
            # Raw labels may contain values of no class. Class indices may only contain 255 besides the classes.
            unknown = results.get('unknown_labels') or ('error' if classes is None else 'ignore')
            results['pts_semantic_mask'] = class_indices(
                scene['label'], range(IGNORED) if classes is None else classes, unknown, f'{path}: label'
            )
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(features={self.features}, in_memory={self.in_memory}, rgb_max={self.rgb_max})'


@TRANSFORMS.register_module()
class SceneFeatures(BaseTransform):
    """Append features of the place of a point in its island of the scene.

    Required and changed keys: ``points`` and ``feature_columns`` of a whole scene.

    Args:
        features (Sequence[str]): 'height': z above the lowest point, in metres, one column. 'position': x, y and z from
            0 to 1 over the extent, three columns. Coordinates, colours and positions are the nine channels of PointNet
            (arXiv 1612.00593, section 5.2).

    Raises:
        ValueError: If a feature is unknown.
    """

    def __init__(self, features: Sequence[str]) -> None:
        if unknown := set(features) - {'height', 'position'}:
            raise ValueError(f"SceneFeatures makes 'height' and 'position', not {min(unknown)!r}")
        self.features = tuple(features)

    def transform(self, results: dict) -> dict:
        """Append the features to a sample."""
        xyz = results['points'][:, :3]
        islands = find_islands(xyz)
        low, high = island_boxes(xyz, islands)
        for name in self.features:
            if name == 'height':
                append_feature(results, name, xyz[:, 2:] - low[islands, 2:])
            else:
                # Without extent along an axis, the position is 0.
                extent = np.where(high > low, high - low, 1)
                append_feature(results, name, (xyz - low[islands]) / extent[islands])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(features={self.features})'


@TRANSFORMS.register_module()
class VoxelSample(BaseTransform):
    """Keep one random point of each voxel of a scene.

    Required key: ``points``. Changed keys: ``points`` and ``pts_semantic_mask`` if there.

    Args:
        voxel_size (float): Side of a voxel, in metres.
    """

    def __init__(self, voxel_size: float) -> None:
        if voxel_size <= 0:
            raise ValueError(f'VoxelSample: voxel_size={voxel_size} is not positive')
        self.voxel_size = voxel_size

    def transform(self, results: dict) -> dict:
        """Reduce the points of a sample."""
        ids = voxel_ids(results['points'][:, :3], self.voxel_size)
        return keep_points(results, draw_point_per_voxel(ids, np.random))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(voxel_size={self.voxel_size})'


@TRANSFORMS.register_module()
class SceneCrop(BaseTransform):
    """Crop a fixed number of points around a random centre of a scene, for training.

    Coordinates then count from the centre (z of a block from the floor of the island), in units of ``size``.
    :class:`SceneSegmentor` does the same in a test. If a crop has more points, some are drawn. If it has fewer, some
    are drawn again. The points become float32.

    Required key: ``points``. Required with ``centre='balanced'``: ``pts_semantic_mask``. Changed keys: both.

    Args:
        crop (str): ``'block'``, a column from floor to ceiling over a square, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere, in metres.
        num_points (int): Points of the crop.
        centre (str): ``'uniform'``: a random point of the scene. ``'balanced'``: a random point of a random class of
            the scene. Defaults to 'uniform'.

    Raises:
        ValueError: If ``crop`` or ``centre`` is unknown, or a number is not positive.
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
            # Without a labelled point every crop is equally useless.
            if len(classes):
                return np.random.choice(np.flatnonzero(labels == np.random.choice(classes)))
        return np.random.randint(len(results['points']))

    def transform(self, results: dict) -> dict:
        """Crop a sample."""
        xyz = results['points'][:, :3]
        warn_unless_metres(xyz, self.size, results.get('lidar_path', 'a scene'))
        index, islands = self._draw_centre(results), find_islands(xyz)
        island = np.flatnonzero(islands == islands[index])
        centre, floor = xyz[index], xyz[island, 2].min()
        # For a single crop, testing every point is faster than building a tree.
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
