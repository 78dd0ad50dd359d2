"""Pictures and files of a model's results on point clouds: segmentations and reconstructions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mmmap.models.reconstruction_results import CloudReconstruction
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import IGNORED

from .cloud_drawing import GREY, Cloud, Palette, draw_clouds, height_colours, label_colours, make_palette


def draw_segmentation(
    xyz: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    palette: Palette | None = None,
) -> np.ndarray:
    """Draw a cloud, its true labels if they are given, and its predicted labels.

    Args:
        xyz (np.ndarray): Points, shape (N, 3).
        prediction (np.ndarray): Predicted classes, shape (N,).
        truth (np.ndarray, optional): True classes, 255 for none, shape (N,).
        rgb (np.ndarray, optional): Colours of the points from 0 to 255, shape (N, 3).
        classes (Sequence[str], optional): Names of the classes for the legend. None shows their numbers.
        palette (Palette, optional): Colours of the classes from 0 to 255.

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.
    """
    used = np.unique(prediction) if truth is None else np.union1d(prediction, truth)
    used = np.setdiff1d(used, IGNORED).astype(int)
    count = len(classes) if classes else int(used.max(initial=0)) + 1
    colours = make_palette(count) if palette is None else np.asarray(palette)
    names = classes or [str(i) for i in range(count)]
    clouds = [Cloud('input', xyz, rgb)]
    if truth is not None:
        clouds.append(Cloud('truth', xyz, label_colours(truth, colours)))
    clouds.append(Cloud('prediction', xyz, label_colours(prediction, colours)))
    # The legend has only the classes in the picture: a part data set has fifty.
    return draw_clouds(clouds, {names[i]: colours[i] for i in used})


def draw_point_reconstruction(
    clouds: Sequence[np.ndarray], visible: Sequence[np.ndarray], rebuilt: Sequence[np.ndarray]
) -> np.ndarray:
    """Draw original, visible and reconstructed clouds, one row per cloud.

    In the reconstruction, visible points are grey and predicted points are coloured by height.

    Args:
        clouds (Sequence[np.ndarray]): Points of each cloud, shape (N, 3).
        visible (Sequence[np.ndarray]): Points that the model got, shape (V, 3).
        rebuilt (Sequence[np.ndarray]): Points that it predicted, shape (M, 3).

    Returns:
        np.ndarray: An RGB picture, (height, width, 3), uint8.
    """
    drawn = []
    for cloud, shown, predicted in zip(clouds, visible, rebuilt, strict=True):
        # Coloured together, so that equal colours are equal heights in all three.
        colours = height_colours(np.concatenate([cloud, shown, predicted]))
        of_cloud, of_shown, of_predicted = np.split(colours, np.cumsum([len(cloud), len(shown)]))
        grey = np.full_like(of_shown, GREY[0])
        drawn += [
            Cloud('input', cloud, of_cloud),
            Cloud('visible', shown, of_shown),
            Cloud('rebuilt', np.concatenate([shown, predicted]), np.concatenate([grey, of_predicted])),
        ]
    return draw_clouds(drawn, columns=3)


def save_point_reconstruction(
    reconstruction: CloudReconstruction, inputs: Tensor, folder: str | Path, names: Sequence[str] | None = None
) -> np.ndarray:
    """Write reconstructed clouds as PLY files, and draw them.

    The files are ``NAME_input.ply``, ``NAME_visible.ply`` and, with the predicted points, ``NAME_rebuilt.ply``.

    Args:
        reconstruction (CloudReconstruction): The model's result on ``inputs``.
        inputs (Tensor): Clouds, shape (B, N, 3 + F).
        folder (str | Path): Folder of the files.
        names (Sequence[str], optional): A name for each cloud. None takes their numbers.

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
