"""Pictures of the receptive fields and the token responses of a backbone."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .figures import new_figure, save_figure

#: Lower end of the logarithmic scale of receptive fields, as a share of their largest value.
SMALLEST = 1e-3
PANEL = 2.4  # inches


def _panels(rows: int, columns: int) -> tuple[Any, Any]:
    """A figure and its panels (rows, columns) without ticks."""
    figure = new_figure(PANEL * columns, PANEL * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    return figure, panels


def draw_receptive_fields(fields: dict[str, Tensor], out: str | Path) -> None:
    """Draw effective receptive fields side by side on one logarithmic scale, each divided by its largest value.

    Args:
        fields (dict[str, Tensor]): Fields (H, W) by title.
        out (str | Path): Picture file to write.
    """
    from matplotlib.colors import LogNorm

    figure, panels = _panels(1, len(fields))
    for axes, (title, field) in zip(panels[0], fields.items(), strict=True):
        shown = (field / field.max()).clamp(min=SMALLEST).cpu().numpy()
        drawn = axes.imshow(shown, cmap='magma', norm=LogNorm(SMALLEST, 1))
        axes.set_title(title, fontsize='small')
    figure.colorbar(drawn, ax=panels, label='gradient / largest gradient', shrink=0.8)
    save_figure(figure, out)


def draw_token_responses(
    images: np.ndarray, rows: list[tuple[int, str, dict[str, Tensor]]], token: tuple[int, int], out: str | Path
) -> None:
    """Draw how a token responds to all others, as maps over images.

    Each row shows an image with the token marked, then maps over this image, each divided by its largest value.

    Args:
        images (np.ndarray): RGB images, shape (B, H, W, 3), uint8.
        rows (list[tuple[int, str, dict[str, Tensor]]]): For each row the index of its image, a name, and maps
            (rows, columns) of the tokens by title.
        token (tuple[int, int]): Row and column of the token whose responses are drawn.
        out (str | Path): Picture file to write.
    """
    from matplotlib.patches import Rectangle

    figure, panels = _panels(len(rows), 1 + len(rows[0][2]))
    height, width = images.shape[1:3]
    for i, (line, (index, name, maps)) in enumerate(zip(panels, rows, strict=True)):
        line[0].imshow(images[index])
        line[0].set_ylabel(name, fontsize='small')
        for axes, (title, map_) in zip(line[1:], maps.items(), strict=True):
            axes.imshow(images[index].mean(-1), cmap='gray', vmin=0, vmax=255)
            shown = (map_ / map_.max().clamp(min=torch.finfo(map_.dtype).tiny)).cpu().numpy()
            # The image shows through where the response is weak.
            extent = -0.5, width - 0.5, height - 0.5, -0.5
            axes.imshow(shown, cmap='inferno', vmin=0, vmax=1, alpha=0.25 + 0.7 * shown, extent=extent)
            if i == 0:
                axes.set_title(title, fontsize='small')
        grid = next(iter(maps.values())).shape
        side = height / grid[0], width / grid[1]
        corner = token[1] * side[1] - 0.5, token[0] * side[0] - 0.5
        for axes in line:
            axes.add_patch(Rectangle(corner, side[1], side[0], fill=False, edgecolor='cyan', linewidth=1.5))
    save_figure(figure, out)
