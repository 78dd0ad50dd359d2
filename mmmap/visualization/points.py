"""Pictures of point clouds: what a model is shown, rebuilds and predicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from mmmap.structures.islands import find_islands
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import IGNORED

#: Elevation and azimuth of the two views of each cloud, in degrees.
VIEWS = ((25, -60), (90, -90))
#: matplotlib draws some 100,000 points a second; more than these are thinned out.
MAX_POINTS = 20_000
#: Of points without a class.
GREY = (190, 190, 190)
PANEL = 3.2  # inches


class PointReconstruction(Protocol):
    """What is needed of what a model's ``reconstruct(inputs, mask)`` gives for clouds.

    Attributes:
        mask (Tensor): True for the groups that were hidden, shape (B, G).
    """

    mask: Tensor

    def clouds(self) -> tuple[list[Tensor], list[Tensor]]:
        """For each cloud the points of the visible groups, (V, 3), and those predicted for the hidden ones, (M, 3)."""


@dataclass(frozen=True)
class Cloud:
    """A cloud to draw.

    Attributes:
        title (str): Stands over it.
        xyz (np.ndarray): Points, shape (N, 3).
        rgb (np.ndarray, optional): Their colours from 0 to 255, shape (N, 3); by default they tell the height.
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
    """Colours that differ, for classes without colours of their own.

    Args:
        count (int): How many.

    Returns:
        np.ndarray: Colours from 0 to 255, shape (count, 3), uint8.
    """
    from matplotlib import colormaps

    if count <= 20:
        # The ten strong colours first, then the ten pale ones.
        colours = np.array(colormaps['tab20'].colors)[[*range(0, 20, 2), *range(1, 20, 2)]][:count]
    else:
        colours = colormaps['gist_ncar'](np.linspace(0.03, 0.97, count))[:, :3]
    return np.round(255 * colours).astype(np.uint8)


def label_colours(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Colours of labelled points, grey where they have no class.

    Args:
        labels (np.ndarray): Classes, 255 for none, shape (N,).
        palette (Sequence[Sequence[int]]): A colour from 0 to 255 for each class.

    Returns:
        np.ndarray: Colours, shape (N, 3), uint8.
    """
    table = np.full((max(256, len(palette)), 3), GREY, np.uint8)
    table[: len(palette)] = palette
    return table[labels]


def _height_colours(xyz: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    # The few lowest and highest points would take most of the colours.
    low, high = np.percentile(xyz[:, 2], (1, 99))
    return 255 * colormaps['viridis'](((xyz[:, 2] - low) / max(high - low, 1e-9)).clip(0, 1))[:, :3]


def _thin_out(cloud: Cloud) -> Cloud:
    """At most ``MAX_POINTS`` of a cloud, and no stray ones far away, beside which it would be a dot."""
    shown = np.arange(len(cloud.xyz))
    if len(shown) > MAX_POINTS:
        shown = np.random.default_rng(0).choice(shown, MAX_POINTS, replace=False)
    islands = find_islands(cloud.xyz[shown])
    sizes = np.bincount(islands)
    shown = shown[(sizes >= min(0.01 * len(shown), sizes[0]))[islands]]
    return Cloud(cloud.title, cloud.xyz[shown], None if cloud.rgb is None else cloud.rgb[shown])


def draw_clouds(
    clouds: Sequence[Cloud], legend: dict[str, Sequence[int]] | None = None, columns: int = 0
) -> np.ndarray:
    """Draw clouds side by side, each from two views: aslant and from above.

    Args:
        clouds (Sequence[Cloud]): What to draw. Those of a row share their frame.
        legend (dict[str, Sequence[int]], optional): Colours from 0 to 255 by name, below the clouds.
        columns (int): Clouds in a row; 0, the default, for all.

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.

    Raises:
        ValueError: If there is no cloud.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    if not clouds:
        raise ValueError('no cloud to draw')
    columns = columns or len(clouds)
    rows = -(-len(clouds) // columns)
    # The pyplot interface would change the caller's backend.
    figure = Figure(figsize=(PANEL * columns, PANEL * rows * len(VIEWS) + 0.6 * bool(legend)), layout='constrained')
    canvas = FigureCanvasAgg(figure)
    for row in range(rows):
        line = [_thin_out(cloud) for cloud in clouds[row * columns : (row + 1) * columns]]
        points = np.concatenate([cloud.xyz for cloud in line])
        middle, half = (points.max(0) + points.min(0)) / 2, max((points.max(0) - points.min(0)).max() / 2, 1e-9)
        for column, cloud in enumerate(line):
            rgb = _height_colours(cloud.xyz) if cloud.rgb is None else cloud.rgb
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
            Line2D([], [], linestyle='', marker='o', color=np.asarray(colour) / 255, label=name)
            for name, colour in legend.items()
        ]
        per_row = max(2, int(columns * PANEL / 1.3))
        figure.legend(handles=handles, loc='outside lower center', ncols=min(len(handles), per_row), fontsize='x-small')
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_segmentation(
    xyz: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    palette: Sequence[Sequence[int]] | None = None,
) -> np.ndarray:
    """Draw a cloud, its true labels where there are some, and the predicted ones.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        prediction (np.ndarray): Predicted classes, shape (N,).
        truth (np.ndarray, optional): True classes, 255 for none, shape (N,).
        rgb (np.ndarray, optional): Colours of the points from 0 to 255, shape (N, 3).
        classes (Sequence[str], optional): Names of the classes, for the legend; by default their numbers.
        palette (Sequence[Sequence[int]], optional): Colours of the classes from 0 to 255.

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.
    """
    used = np.unique(prediction) if truth is None else np.union1d(np.unique(prediction), np.unique(truth))
    used = np.setdiff1d(used, IGNORED).astype(int)
    count = len(classes) if classes else int(used.max(initial=0)) + 1
    palette = make_palette(count) if palette is None else np.asarray(palette)
    names = classes or [str(i) for i in range(count)]
    clouds = [Cloud('input', xyz, rgb)]
    if truth is not None:
        clouds.append(Cloud('truth', xyz, label_colours(truth, palette)))
    clouds.append(Cloud('prediction', xyz, label_colours(prediction, palette)))
    # Only the classes that are seen: a part data set has fifty.
    return draw_clouds(clouds, {names[i]: palette[i] for i in used})


def draw_point_reconstruction(
    clouds: Sequence[np.ndarray], visible: Sequence[np.ndarray], rebuilt: Sequence[np.ndarray]
) -> np.ndarray:
    """Draw clouds, what a model was shown of them, and what it made of that, a row a cloud.

    In the rebuilt cloud visible points are grey, predicted ones coloured by their height.

    Args:
        clouds (Sequence[np.ndarray]): Points of each cloud, shape (N, 3).
        visible (Sequence[np.ndarray]): Those that were shown, shape (V, 3).
        rebuilt (Sequence[np.ndarray]): Predicted points, shape (M, 3).

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.
    """
    drawn = []
    for cloud, shown, predicted in zip(clouds, visible, rebuilt, strict=True):
        # One scale of heights for all three, so that equal colours are equal heights.
        colours = _height_colours(np.concatenate([cloud, shown, predicted]))
        parts = np.split(colours, np.cumsum([len(cloud), len(shown)]))
        drawn += [
            Cloud('input', cloud, parts[0]),
            Cloud('visible', shown, parts[1]),
            Cloud(
                'rebuilt',
                np.concatenate([shown, predicted]),
                np.concatenate([np.full_like(parts[1], GREY[0]), parts[2]]),
            ),
        ]
    return draw_clouds(drawn, columns=3)


def save_point_reconstruction(
    reconstruction: PointReconstruction, inputs: Tensor, folder: str | Path, names: Sequence[str] | None = None
) -> np.ndarray:
    """Write what a model made of clouds as PLY files, and draw it.

    The files are ``NAME_input.ply``, ``NAME_visible.ply`` and ``NAME_rebuilt.ply``, the last of predicted points.

    Args:
        reconstruction (PointReconstruction): What the model made of ``inputs``.
        inputs (Tensor): Clouds, shape (B, N, 3 + F).
        folder (str | Path): Where the files go.
        names (Sequence[str], optional): A name for each cloud; by default its number.

    Returns:
        np.ndarray: The picture of :func:`draw_point_reconstruction`.
    """
    visible, rebuilt = reconstruction.clouds()
    parts = {
        part: [cloud[:, :3].detach().float().cpu().numpy() for cloud in clouds]
        for part, clouds in (('input', inputs), ('visible', visible), ('rebuilt', rebuilt))
    }
    names = [str(i) for i in range(len(inputs))] if names is None else names
    for part, clouds in parts.items():
        for name, xyz in zip(names, clouds, strict=True):
            write_ply(Path(folder) / f'{name}_{part}.ply', xyz)
    return draw_point_reconstruction(*parts.values())
