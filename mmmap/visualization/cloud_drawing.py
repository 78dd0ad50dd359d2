"""Pictures of point clouds, and colours for classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmmap.structures.islands import find_islands

from .figures import new_figure

#: Elevation and azimuth of the two views of each cloud, in degrees.
VIEWS = ((25, -60), (90, -90))
#: Larger clouds are drawn by this many random points: matplotlib draws about 100,000 points a second.
MAX_POINTS = 20_000
#: Colour of points without a class.
GREY = (190, 190, 190)
PANEL = 3.2  # inches

Palette = np.ndarray | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Cloud:
    """A cloud to draw.

    Attributes:
        title (str): Title above the cloud.
        xyz (np.ndarray): Points, shape (N, 3).
        rgb (np.ndarray, optional): Colours of the points from 0 to 255, shape (N, 3). None colours them by height.
    """

    title: str
    xyz: np.ndarray
    rgb: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.xyz.ndim != 2 or self.xyz.shape[1] != 3 or not len(self.xyz):
            raise ValueError(f'cloud {self.title!r}: its points have the shape {self.xyz.shape}, not (N, 3)')
        if self.rgb is not None and self.rgb.shape != self.xyz.shape:
            raise ValueError(f'cloud {self.title!r}: {self.rgb.shape} colours for {self.xyz.shape} points')


def make_palette(count: int) -> np.ndarray:
    """Different colours from 0 to 255 for ``count`` classes, shape (count, 3), uint8."""
    from matplotlib import colormaps

    if count <= 20:
        # tab20 alternates strong and pale colours: the ten strong ones come first here.
        colours = colormaps['tab20']([*range(0, 20, 2), *range(1, 20, 2)][:count])
    else:
        colours = colormaps['gist_ncar'](np.linspace(0.03, 0.97, count))
    return np.round(255 * colours[:, :3]).astype(np.uint8)


def label_colours(labels: np.ndarray, palette: Palette) -> np.ndarray:
    """Colours of labelled points.

    Args:
        labels (np.ndarray): Classes, shape (N,). Those without a colour in the palette, such as 255, become grey.
        palette (Palette): A colour from 0 to 255 for each class.

    Returns:
        np.ndarray: Colours, shape (N, 3), uint8.
    """
    table = np.full((max(256, len(palette)), 3), GREY, np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def height_colours(xyz: np.ndarray) -> np.ndarray:
    """Colours from 0 to 255 by the height of points (N, 3), shape (N, 3)."""
    from matplotlib import colormaps

    # Percentiles, so that a few outliers do not take most of the colours.
    low, high = np.percentile(xyz[:, 2], (1, 99))
    return 255 * colormaps['viridis'](((xyz[:, 2] - low) / max(high - low, 1e-9)).clip(0, 1))[:, :3]


def _thin_out(cloud: Cloud) -> Cloud:
    """At most ``MAX_POINTS`` points of a cloud, without small groups far from the rest: they would shrink the rest."""
    shown: np.ndarray = np.arange(len(cloud.xyz))
    if len(shown) > MAX_POINTS:
        shown = np.random.default_rng(0).choice(shown, MAX_POINTS, replace=False)
    islands = find_islands(cloud.xyz[shown])
    sizes = np.bincount(islands)
    shown = shown[(sizes >= min(0.01 * len(shown), sizes[0]))[islands]]
    return Cloud(cloud.title, cloud.xyz[shown], None if cloud.rgb is None else cloud.rgb[shown])


def draw_clouds(
    clouds: Sequence[Cloud], legend: Mapping[str, Sequence[int]] | None = None, columns: int = 0
) -> np.ndarray:
    """Draw clouds side by side, each from two views: obliquely and from above.

    Args:
        clouds (Sequence[Cloud]): The clouds. Those in one row have the same axes.
        legend (Mapping[str, Sequence[int]], optional): Colours from 0 to 255 by name, drawn below the clouds.
        columns (int): Clouds per row; 0, the default, for all in one row.

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.

    Raises:
        ValueError: If there is no cloud.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.lines import Line2D

    if not clouds:
        raise ValueError('no cloud to draw')
    columns = columns or len(clouds)
    rows = -(-len(clouds) // columns)
    figure = new_figure(PANEL * columns, PANEL * rows * len(VIEWS) + 0.6 * bool(legend))
    for row in range(rows):
        line = [_thin_out(cloud) for cloud in clouds[row * columns : (row + 1) * columns]]
        points = np.concatenate([cloud.xyz for cloud in line])
        middle, half = (points.max(0) + points.min(0)) / 2, max((points.max(0) - points.min(0)).max() / 2, 1e-9)
        for column, cloud in enumerate(line):
            rgb = height_colours(cloud.xyz) if cloud.rgb is None else cloud.rgb
            size = min(8.0, max(0.6, 8000 / len(cloud.xyz)))
            for view, (elevation, azimuth) in enumerate(VIEWS):
                place = (row * len(VIEWS) + view) * columns + column + 1
                axes = figure.add_subplot(rows * len(VIEWS), columns, place, projection='3d', proj_type='ortho')
                axes.scatter(*cloud.xyz.T, c=rgb / 255, s=size, linewidths=0, depthshade=False)
                limits = np.stack([middle - half, middle + half], axis=1)
                axes.set(xlim=limits[0], ylim=limits[1], zlim=limits[2])
                axes.set_box_aspect((1, 1, 1), zoom=1.3)
                axes.view_init(elevation, azimuth)
                axes.set_axis_off()
                if view == 0:
                    axes.set_title(cloud.title, fontsize='small')
    if legend:
        handles = [
            Line2D([], [], linestyle='', marker='o', color='#{:02x}{:02x}{:02x}'.format(*colour), label=name)
            for name, colour in legend.items()
        ]
        per_row = max(2, int(columns * PANEL / 1.3))
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), per_row), fontsize='x-small')
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
