"""A hook that draws reconstructions of point clouds during pretraining."""

from pathlib import Path
from typing import Any

from mmengine.runner import Runner
from torch import Tensor

from mmmap.registry import HOOKS
from mmmap.visualization import save_point_reconstruction

from .reconstruction_hook import ReconstructionHook


@HOOKS.register_module()
class PointReconstructionHook(ReconstructionHook):
    """Draw original, visible and reconstructed clouds every few epochs, and write them as PLY files.

    The clouds are the first of the run's first batch, always with the same masks. mmengine's local backend writes each
    picture as a PNG file under ``vis_data/vis_image``. The PLY files ``NUMBER_input.ply``, ``NUMBER_visible.ply`` and
    ``NUMBER_rebuilt.ply`` are in ``vis_data/points/epoch_N``. For a :class:`~mmmap.models.selfsup.JointMAP` the part of
    clouds is drawn, as ``points_reconstruction``.

    Args:
        interval (int): Epochs between two pictures; the last epoch always has one. Defaults to 10.
        num_clouds (int): Clouds in a picture. Defaults to 4.
    """

    part = 'points'

    def __init__(self, interval: int = 10, num_clouds: int = 4) -> None:
        if num_clouds < 1:
            raise ValueError(f'num_clouds={num_clouds} must be positive')
        super().__init__(interval=interval, num_images=num_clouds)

    def _show(self, runner: Runner, model: Any, reconstruction: Any, inputs: Tensor) -> None:
        epoch = runner.epoch + 1
        folder = Path(runner.log_dir) / 'vis_data' / 'points' / f'epoch_{epoch}'
        picture = save_point_reconstruction(reconstruction, inputs, folder)
        runner.visualizer.add_image(self._title(runner), picture, step=epoch)
