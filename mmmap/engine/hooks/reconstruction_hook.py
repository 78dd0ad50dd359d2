"""Shows during pretraining what the model rebuilds."""

from collections.abc import Sequence

import torch
from mmengine.dist import master_only
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmap.models.selfsup import JointMAP, Reconstruction
from mmmap.models.selfsup.joint_map import modality_of
from mmmap.registry import HOOKS
from mmmap.visualization import draw_reconstruction

from .side_product_hook import SideProductHook


@HOOKS.register_module()
class ReconstructionHook(SideProductHook):
    """Every few epochs, draw original, masked and rebuilt images into the visualizer.

    The images are the first of the run's first batch and the masks those first drawn for them, so that the pictures of
    a run can be compared. mmengine's local backend writes each as a PNG file under ``vis_data/vis_image``. Of a
    :class:`~mmmap.models.selfsup.JointMAP` it draws the part of images, as ``image_reconstruction``.

    Pictures come after the checkpoint of the epoch; what goes wrong in them is logged and ends nothing.

    Args:
        interval (int): Epochs between two pictures; the last epoch has one too. Defaults to 10.
        num_images (int): Images in a picture. Defaults to 8.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is not positive.
    """

    #: What it draws of a JointMAP.
    part = 'image'

    def __init__(self, interval: int = 10, num_images: int = 8) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(f'interval={interval}, num_images={num_images}: both must be positive')
        self.interval = interval
        self.num_images = num_images
        self._batch = None
        self._mask = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | Sequence | None = None) -> None:
        """Keep the first images of the first batch, of a :class:`JointMAP` the first of its part."""
        if self._batch is None and data_batch is not None:
            self.attempt(self._keep, runner, data_batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw when due."""
        if self._batch is None:
            return
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._draw(runner)

    def _keep(self, runner: Runner, data_batch: dict) -> None:
        if not self._is_joint(runner) or modality_of(data_batch['inputs']) == self.part:
            self._batch = {name: values[: self.num_images] for name, values in data_batch.items()}

    @staticmethod
    def _whole_model(runner: Runner) -> nn.Module:
        return runner.model.module if is_model_wrapper(runner.model) else runner.model

    def _is_joint(self, runner: Runner) -> bool:
        return isinstance(self._whole_model(runner), JointMAP)

    def _title(self, runner: Runner) -> str:
        return f'{self.part}_reconstruction' if self._is_joint(runner) else 'reconstruction'

    @master_only
    def _draw(self, runner: Runner) -> None:
        self.attempt(self._rebuild, runner)

    @torch.no_grad()
    def _rebuild(self, runner: Runner) -> None:
        model = self._whole_model(runner)
        if self._is_joint(runner):
            model = getattr(model, self.part)
        training = model.training
        model.eval()
        try:
            inputs = model.data_preprocessor(self._batch, False)['inputs']
            reconstruction = model.reconstruct(inputs, self._mask)
        finally:
            model.train(training)
        self._mask = reconstruction.mask
        self._show(runner, model, reconstruction, inputs)

    def _show(self, runner: Runner, model: nn.Module, reconstruction: Reconstruction, inputs: Tensor) -> None:
        picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor)
        runner.visualizer.add_image(self._title(runner), picture, step=runner.epoch + 1)
