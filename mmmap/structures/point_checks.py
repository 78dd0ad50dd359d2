"""Checks of the points and colours of clouds and scenes, and their conversion to floats."""

import numpy as np

#: float32 is used if it moves no coordinate by more than this fraction of the spread of most points.
_PRECISION = 1e-5
_LARGEST = np.finfo(np.float32).max


def _within(values: np.ndarray, low: float | np.floating, high: float | np.floating) -> bool:
    """Whether all values are in a range. NaN is not. No copy is made, because every scene is checked."""
    return not values.size or bool(values.min() >= low and values.max() <= high)


def check_points(points: np.ndarray, name: str) -> None:
    """Raise an error unless the points can be used.

    Args:
        points (np.ndarray): Coordinates, then features.
        name (str): Their name for the error, such as the file.

    Raises:
        ValueError: If they are not numbers of shape (N, 3 + F), there are none, or one is not finite as float32. One
            line that names the first such point, counted from 0.
    """
    if points.ndim != 2 or points.shape[1] < 3:
        raise ValueError(f'{name}: points have the shape {points.shape}, not (N, 3 + F)')
    if points.dtype.kind not in 'fiu':
        raise ValueError(f'{name}: points are of type {points.dtype}, not numbers')
    if not len(points):
        raise ValueError(f'{name}: it has no points')
    if not _within(points, -_LARGEST, _LARGEST):
        good = (np.abs(points) <= _LARGEST).all(axis=1)
        index = int(np.flatnonzero(~good)[0])
        values = ', '.join(f'{value:g}' for value in points[index])
        raise ValueError(
            f'{name}: point {index} is not finite ({values}), {np.count_nonzero(~good):,} of {len(points):,} points '
            'are not: remove them'
        )


def check_cloud(points: np.ndarray, name: str) -> None:
    """Raise an error unless a model can learn from a whole cloud or scene.

    Args:
        points (np.ndarray): Coordinates, then features.
        name (str): Their name for the error, such as the file.

    Raises:
        ValueError: As :func:`check_points`, and if all points lie in one place, which makes gradients overflow. One
            line.
    """
    check_points(points, name)
    first, last = points[[0, -1], :3]
    if (first == last).all() and (points[:, :3] == first).all():
        raise ValueError(f'{name}: all its {len(points):,} points lie in one place, {first.tolist()}')


def to_floats(points: np.ndarray) -> np.ndarray:
    """Convert points (N, 3 + F) to float32, or to float64 if float32 would change the shape of the cloud.

    For example, float32 rounds UTM coordinates to 0.5 m, so they need float64 until they are centred. A few points far
    from all others do not count.
    """
    small, xyz = points.astype(np.float32), points[:, :3]
    if points.dtype == np.float16 or points.dtype == np.float32:
        return small
    # Some thousand points are enough to estimate the spread.
    some = xyz[:: max(1, len(xyz) // 10_000)].astype(np.float64)
    spread = np.median(np.abs(some - np.median(some, axis=0)), axis=0).max()
    # If most points lie in one place, the extent of all points counts.
    most = _PRECISION * (spread or np.ptp(xyz.astype(np.float64), axis=0).max())
    # The bound of the rounding error usually decides, and is cheaper than the error itself.
    if not most or 2**-24 * max(abs(float(xyz.min())), abs(float(xyz.max()))) <= most:
        return small
    return small if np.abs(xyz - small[:, :3]).max() <= most else points.astype(np.float64)


def to_colours(rgb: np.ndarray, name: str, rgb_max: float | None = None) -> np.ndarray:
    """Scale colours to 0 to 255.

    Args:
        rgb (np.ndarray): Red, green and blue as stored, shape (N, 3).
        name (str): Their name for errors.
        rgb_max (float, optional): The stored value of full brightness, such as 1, 255 or 65535. By default 65535 for
            uint16 with values above 4095, else 255.

    Returns:
        np.ndarray: Shape (N, 3); as stored, or float32 if they were scaled.

    Raises:
        ValueError: If there are not three channels, a value is not from 0 to ``rgb_max``, or ``rgb_max`` is None and
            full brightness may be 1, or have 10 or 12 bits. One line that names the first such point.
    """
    if rgb.ndim != 2 or rgb.shape[1] != 3 or rgb.dtype.kind not in 'fiu':
        hint = ': store the alpha channel under another name' if rgb.shape[1:] == (4,) else ''
        raise ValueError(f'{name} has the shape {rgb.shape} of {rgb.dtype}, not (N, 3) of numbers{hint}')
    most = rgb.max() if rgb.size else 0
    if rgb_max is None:
        # Colours from 0 to 1 may exceed 1 a little.
        if rgb.dtype.kind == 'f' and 0 < most < 2:
            raise ValueError(
                f'{name} goes up to {most:g}: colours must be from 0 to 255; if these are from 0 to 1, set rgb_max=1'
            )
        rgb_max = 65535 if (rgb.dtype.kind, rgb.dtype.itemsize) == ('u', 2) and most > 4095 else 255
    if not _within(rgb, 0, rgb_max):
        index, column = np.argwhere(~((rgb >= 0) & (rgb <= rgb_max)))[0]
        raise ValueError(
            f'{name}: {("red", "green", "blue")[column]} of point {index} is {rgb[index, column]:g}, not from 0 to '
            f'{rgb_max:g}; set rgb_max to the value of full brightness'
        )
    return rgb if rgb_max == 255 else rgb.astype(np.float32) * np.float32(255 / rgb_max)
