"""Scenes as files, and what the training and the test on scenes must do alike: voxels, crops and their frames."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from .ply import read_ply

CROPS = ('block', 'sphere')
#: Label of points that belong to no class.
IGNORED = 255
# Points on the edge of a crop may not be lost to rounding.
_EDGE = 1 + 1e-5


def write_scene(path: str | Path, **arrays: np.ndarray) -> None:
    """Write a scene as an ``.npz`` file, whole or not at all.

    Args:
        path (str | Path): The file; its folder is made where needed.
        **arrays (np.ndarray): ``xyz`` (N, 3), and ``label`` (N,), ``rgb`` (N, 3) or other features, with a row a point.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'{path.name}.part')
    with open(part, 'wb') as file:
        np.savez(file, **arrays)
    os.replace(part, path)


def read_scene(path: str | Path) -> dict[str, np.ndarray]:
    """Read a scene.

    Args:
        path (str | Path): An ``.npz`` file with ``xyz`` (N, 3) and more arrays with a row a point, or a ``.ply`` file.

    Returns:
        dict[str, np.ndarray]: Its arrays by name: of a PLY file ``xyz``, ``rgb`` if its vertices have colours, and
        their other properties.

    Raises:
        ValueError: If the file is damaged, has no points, or an array of it has not one row a point.
    """
    if Path(path).suffix == '.ply':
        return _read_ply_scene(path)
    try:
        with np.load(path) as content:
            arrays = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, ValueError, EOFError, AttributeError) as error:
        raise ValueError(f'{path} is cut off or no .npz file ({error})') from None
    xyz = arrays.get('xyz')
    if xyz is None or xyz.ndim != 2 or xyz.shape[1] != 3 or not len(xyz):
        raise ValueError(f'{path} has no points: its array xyz is {None if xyz is None else xyz.shape}, not (N, 3)')
    for name, values in arrays.items():
        if values.shape[:1] != (len(xyz),):
            raise ValueError(f'{path}: its array {name} has the shape {values.shape}, of {len(xyz)} points')
    return arrays


def _read_ply_scene(path: str | Path) -> dict[str, np.ndarray]:
    vertices, arrays = read_ply(path), {}
    for name, properties in (('xyz', ('x', 'y', 'z')), ('rgb', ('red', 'green', 'blue'))):
        if vertices.keys() >= set(properties):
            arrays[name] = np.stack([vertices.pop(key) for key in properties], axis=1)
        elif name == 'xyz':
            raise ValueError(f'{path} has no points: its vertices have no x, y and z')
    return arrays | vertices


def count_points(path: str | Path) -> int:
    """Number of points of a scene, from the header of its ``xyz``.

    Args:
        path (str | Path): The ``.npz`` file.

    Raises:
        ValueError: If the file is damaged or has no ``xyz``.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open('xyz.npy') as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)[0][0]
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        raise ValueError(f'{path} is cut off or no scene ({error})') from None


def class_indices(labels: np.ndarray, class_labels: Sequence[int]) -> np.ndarray:
    """Turn the labels of a data set into classes.

    Args:
        labels (np.ndarray): Labels from 0, shape (N,).
        class_labels (Sequence[int]): The label of each class.

    Returns:
        np.ndarray: The index in ``class_labels`` of each label, 255 for one that is not there, shape (N,), int64.
    """
    table = np.full(max(int(labels.max()), *class_labels) + 1, IGNORED)
    table[list(class_labels)] = np.arange(len(class_labels))
    return table[labels]


def is_scene(path: str | Path) -> bool:
    """Whether a scene is there and whole, as far as its directory and its header tell."""
    try:
        return Path(path).is_file() and count_points(path) > 0
    except ValueError:
        return False


def voxel_ids(xyz: np.ndarray, size: float) -> np.ndarray:
    """Number the voxels that hold points.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        size (float): Side of a voxel.

    Returns:
        np.ndarray: For each point its voxel, from 0 without a gap, shape (N,), int64.
    """
    cells = np.floor((xyz - xyz.min(0)) / size).astype(np.int64)
    # One number a voxel: unique() on rows is some ten times as slow.
    _, ids = np.unique(np.ravel_multi_index(cells.T, cells.max(0) + 1), return_inverse=True)
    return ids.reshape(-1)


def draw_of_voxels(ids: np.ndarray, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
    """Draw one point of each voxel.

    Args:
        ids (np.ndarray): The points' voxels, see :func:`voxel_ids`.
        rng (np.random.Generator | np.random.RandomState): Draws.

    Returns:
        np.ndarray: Indices of the points, by voxel, shape (V,), int64.
    """
    drawn = np.empty(ids.max() + 1, np.int64)
    order = rng.permutation(len(ids))
    # Of several points of a voxel the last one in the order stays.
    drawn[ids[order]] = order
    return drawn


def make_tree(xyz: np.ndarray, crop: str) -> cKDTree:
    """A search tree for :func:`points_around`: over the plan of a scene for blocks, over space for spheres."""
    return cKDTree(xyz[:, :2] if crop == 'block' else xyz)


def points_around(tree: cKDTree, centre: np.ndarray, crop: str, size: float) -> np.ndarray:
    """The points of a crop.

    Args:
        tree (cKDTree): Of :func:`make_tree`.
        centre (np.ndarray): Centre of the crop, shape (3,); a block needs only x and y.
        crop (str): ``'block'``, a column from floor to ceiling, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere.

    Returns:
        np.ndarray: Indices of the points, ascending, int64.
    """
    if crop == 'block':
        found = tree.query_ball_point(centre[:2], size / 2 * _EDGE, p=np.inf)
    else:
        found = tree.query_ball_point(centre, size * _EDGE)
    return np.sort(np.asarray(found, np.int64))


def to_crop_frame(xyz: np.ndarray, centre: np.ndarray, crop: str, size: float, floor: float) -> np.ndarray:
    """Coordinates as the model sees them: from the centre of the crop, in units of its size.

    Args:
        xyz (np.ndarray): Points of the crop, shape (N, 3).
        centre (np.ndarray): Its centre, shape (3,).
        crop (str): ``'block'``, whose z counts from the floor of the scene, or ``'sphere'``.
        size (float): Side of the block or radius of the sphere.
        floor (float): z of the scene's lowest point.

    Returns:
        np.ndarray: Coordinates, shape (N, 3), float32.
    """
    origin = np.array([centre[0], centre[1], floor if crop == 'block' else centre[2]], np.float64)
    return ((xyz - origin) / size).astype(np.float32)


def draw_points(indices: np.ndarray, count: int, rng: np.random.Generator | np.random.RandomState) -> np.ndarray:
    """Draw a number of points: some of more, all of fewer and some of them again.

    Args:
        indices (np.ndarray): What is drawn from, shape (N,).
        count (int): How many are needed.
        rng (np.random.Generator | np.random.RandomState): Draws.

    Returns:
        np.ndarray: Drawn indices, shape (count,).
    """
    if len(indices) >= count:
        return rng.choice(indices, count, replace=False)
    return np.concatenate([indices, rng.choice(indices, count - len(indices))])


def split_points(indices: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Split the points of a crop at random into parts of a number of points, the last one filled up from the others.

    Args:
        indices (np.ndarray): The points, shape (N,).
        count (int): Points of a part.
        rng (np.random.Generator): Draws.

    Yields:
        np.ndarray: Indices of a part, shape (count,). Every point is in one at least.
    """
    order = rng.permutation(indices)
    for start in range(0, len(order), count):
        part = order[start : start + count]
        if len(part) < count and len(order) > count:
            # Points that the model has seen in another part make this one as dense.
            part = np.concatenate([part, rng.choice(order[:start], count - len(part), replace=False)])
        yield draw_points(part, count, rng)


def _starts(low: float, high: float, size: float, stride: float, shift: float) -> np.ndarray:
    """Where the blocks along an axis start. The last one ends at the scene's end, as far as it is not shifted."""
    count = max(0, int(np.ceil((high - low + shift - size) / stride))) + 1
    starts = low - shift + stride * np.arange(count)
    if high - low <= size and not shift:
        return np.array([(low + high - size) / 2])
    return starts if shift else np.minimum(starts, high - size)


def cover_scene(
    xyz: np.ndarray,
    crop: str,
    size: float,
    stride: float,
    rng: np.random.Generator,
    shifted: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cover a scene with overlapping crops.

    Blocks lie on a grid. Spheres lie around points drawn from those that no sphere so far has within ``stride`` of its
    centre, so that every point is well inside one of them.

    Args:
        xyz (np.ndarray): Points of the scene, shape (N, 3).
        crop (str): ``'block'`` or ``'sphere'``.
        size (float): Side of the blocks or radius of the spheres.
        stride (float): Distance of the blocks, or see above; at most ``size``.
        rng (np.random.Generator): Draws the spheres, and the shift of the blocks.
        shifted (bool): Whether the grid of blocks is shifted by a random part of ``stride``, for another vote.

    Yields:
        tuple[np.ndarray, np.ndarray]: Centre (3,) and indices of the points of a crop. Every point is in one at least.
    """
    tree = make_tree(xyz, crop)
    left = np.ones(len(xyz), bool)
    if crop == 'block':
        low, high = xyz[:, :2].min(0), xyz[:, :2].max(0)
        shift = rng.uniform(0, stride, 2) if shifted else np.zeros(2)
        xs, ys = (_starts(*axis, size, stride, by) for *axis, by in zip(low, high, shift, strict=True))
        for x in xs:
            for y in ys:
                centre = np.array([x + size / 2, y + size / 2, 0])
                found = points_around(tree, centre, crop, size)
                if len(found):
                    left[found] = False
                    yield centre, found
    # Of blocks none is left but for rounding.
    for index in rng.permutation(len(xyz)):
        if left[index]:
            found = points_around(tree, xyz[index], crop, size)
            near = found if crop == 'block' else points_around(tree, xyz[index], crop, stride)
            left[near] = False
            yield xyz[index], found
