"""Shows during pretraining on points what the model rebuilds."""

from pathlib import Path
from typing import Protocol

import numpy as np
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmap.registry import HOOKS
from mmmap.utils.ply import write_ply
from mmmap.visualization import draw_point_reconstruction

from .reconstruction_hook import ReconstructionHook


class PointReconstruction(Protocol):
    """What the hook needs of what a model's ``reconstruct(inputs, mask)`` gives for clouds.

    Attributes:
        mask (Tensor): True for the groups that were hidden, shape (B, G).
    """

    mask: Tensor

    def clouds(self) -> tuple[list[Tensor], list[Tensor]]:
        """For each cloud the points of the visible groups, (V, 3), and those predicted for the hidden ones, (M, 3)."""


def _points(clouds: list[Tensor] | Tensor) -> list[np.ndarray]:
    return [cloud[:, :3].detach().float().cpu().numpy() for cloud in clouds]


@HOOKS.register_module()
class PointReconstructionHook(ReconstructionHook):
    """Every few epochs, draw original, visible and rebuilt clouds into the visualizer, and write them as PLY files.

    The clouds are the first of the run's first batch and the masks those first drawn for them. mmengine's local backend
    writes each picture as a PNG file under ``vis_data/vis_image``; the PLY files, ``NUMBER_input.ply``,
    ``NUMBER_visible.ply`` and ``NUMBER_rebuilt.ply``, are in ``vis_data/points/epoch_N``. Of a
    :class:`~mmmap.models.selfsup.JointMAP` it draws the part of clouds, as ``points_reconstruction``.

    Args:
        interval (int): Epochs between two pictures; the last epoch has one too. Defaults to 10.
        num_clouds (int): Clouds in a picture. Defaults to 4.
    """

    part = 'points'

    def __init__(self, interval: int = 10, num_clouds: int = 4) -> None:
        if num_clouds < 1:
            raise ValueError(f'num_clouds={num_clouds} must be positive')
        super().__init__(interval=interval, num_images=num_clouds)

    def _show(self, runner: Runner, model: nn.Module, reconstruction: PointReconstruction, inputs: Tensor) -> None:
        visible, rebuilt = reconstruction.clouds()
        parts = dict(input=_points(inputs), visible=_points(visible), rebuilt=_points(rebuilt))
        picture = draw_point_reconstruction(*parts.values())
        epoch = runner.epoch + 1
        runner.visualizer.add_image(self._title(runner), picture, step=epoch)
        folder = Path(runner.log_dir) / 'vis_data' / 'points' / f'epoch_{epoch}'
        for name, clouds in parts.items():
            for number, xyz in enumerate(clouds):
                write_ply(folder / f'{number}_{name}.ply', xyz)
