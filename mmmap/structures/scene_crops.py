"""Voxels and crops of scenes, and the frames of the crops: what training and testing on scenes must do alike."""

from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

CROPS = ('block', 'sphere')
# Points on the edge of a crop may not be lost to rounding.
_EDGE = 1 + 1e-5


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
