"""A hook that draws reconstructions of images during pretraining."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.runner import Runner
from torch import Tensor

from mmmap.models.selfsup import JointMAP
from mmmap.models.selfsup.joint_map import modality_of
from mmmap.registry import HOOKS
from mmmap.visualization import draw_reconstruction

from ..runner_parts import unwrapped_model
from .side_product_hook import SideProductHook


@HOOKS.register_module()
class ReconstructionHook(SideProductHook):
    """Draw original, masked and reconstructed images into the visualizer every few epochs.

    The images are the first of the run's first batch, always with the same masks, so that the pictures of a run can be
    compared. mmengine's local backend writes each picture as a PNG file under ``vis_data/vis_image``. For a
    :class:`~mmmap.models.selfsup.JointMAP` the part of images is drawn, as ``image_reconstruction``.

    Pictures are drawn after the checkpoint of the epoch. Errors are logged and do not end the run.

    Args:
        interval (int): Epochs between two pictures; the last epoch always has one. Defaults to 10.
        num_images (int): Images in a picture. Defaults to 8.

    Raises:
        ValueError: If ``interval`` or ``num_images`` is not positive.
    """

    #: The part of a JointMAP that is drawn.
    part = 'image'

    def __init__(self, interval: int = 10, num_images: int = 8) -> None:
        if interval < 1 or num_images < 1:
            raise ValueError(f'interval={interval}, num_images={num_images}: both must be positive')
        self.interval = interval
        self.num_images = num_images
        self._batch: dict | None = None
        self._mask: Tensor | None = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | Sequence | None = None) -> None:
        """Store the first images of the first batch, for a :class:`JointMAP` of the first batch of its part."""
        if self._batch is None and data_batch is not None:
            self.attempt(self._keep_batch, runner, data_batch)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draw when due."""
        if self._batch is None:
            return
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._draw(runner)

    def _keep_batch(self, runner: Runner, data_batch: dict) -> None:
        if not self._is_joint(runner) or modality_of(data_batch['inputs']) == self.part:
            self._batch = {name: values[: self.num_images] for name, values in data_batch.items()}

    def _is_joint(self, runner: Runner) -> bool:
        return isinstance(unwrapped_model(runner), JointMAP)

    def _title(self, runner: Runner) -> str:
        return f'{self.part}_reconstruction' if self._is_joint(runner) else 'reconstruction'

    @master_only
    def _draw(self, runner: Runner) -> None:
        self.attempt(self._rebuild, runner)

    @torch.no_grad()
    def _rebuild(self, runner: Runner) -> None:
        model: Any = unwrapped_model(runner)
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

    def _show(self, runner: Runner, model: Any, reconstruction: Any, inputs: Tensor) -> None:
        picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor)
        runner.visualizer.add_image(self._title(runner), picture, step=runner.epoch + 1)
