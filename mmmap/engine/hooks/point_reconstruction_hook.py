"""Shows during pretraining on points what the model rebuilds."""

from pathlib import Path

from mmengine.runner import Runner
from torch import Tensor, nn

from mmmap.registry import HOOKS
from mmmap.visualization import save_point_reconstruction
from mmmap.visualization.points import PointReconstruction

from .reconstruction_hook import ReconstructionHook


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
        epoch = runner.epoch + 1
        folder = Path(runner.log_dir) / 'vis_data' / 'points' / f'epoch_{epoch}'
        picture = save_point_reconstruction(reconstruction, inputs, folder)
        runner.visualizer.add_image(self._title(runner), picture, step=epoch)
