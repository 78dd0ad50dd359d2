"""What makes a batch of clouds for a model."""

import torch
from mmengine.model import BaseDataPreprocessor

from mmmap.registry import MODELS


@MODELS.register_module()
class PointDataPreprocessor(BaseDataPreprocessor):
    """Stacks clouds of one size and moves them to the device.

    Args:
        batch_augments (dict, optional): Must be None. mmpretrain's ``ImageClassifier`` passes its ``train_cfg``, the
            mixing of images, which clouds do not have.
        non_blocking (bool): Move to the device without waiting. Defaults to False.

    Raises:
        ValueError: If there are ``batch_augments``.
    """

    def __init__(self, batch_augments: dict | None = None, non_blocking: bool = False) -> None:
        super().__init__(non_blocking=non_blocking)
        if batch_augments is not None:
            raise ValueError(f'PointDataPreprocessor does not mix clouds: remove train_cfg={batch_augments}')

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch.

        Args:
            data (dict): ``inputs``, clouds (N, 3 + F) or a stack of them, and perhaps ``data_samples``.
            training (bool): Not used. Defaults to False.

        Returns:
            dict: ``inputs``, shape (B, N, 3 + F) in float32, and ``data_samples``, None if there are none.

        Raises:
            ValueError: If the clouds differ in their points or columns; one line that names both.
        """
        inputs, samples = data['inputs'], data.get('data_samples')
        for index, points in enumerate(inputs):
            if points.shape != inputs[0].shape:
                names = [_name(samples, i) for i in (0, index)]
                raise ValueError(
                    f'clouds of a batch differ: {names[0]} has the shape {tuple(inputs[0].shape)}, {names[1]} '
                    f'{tuple(points.shape)}; PointsSample gives them one number of points, or use batch_size=1'
                )
        if not isinstance(inputs, torch.Tensor):
            # Before they are moved: one copy to the device in place of one a cloud.
            inputs = torch.stack(list(inputs))
        return self.cast_data(dict(inputs=inputs.float(), data_samples=samples))


def _name(samples: list | None, index: int) -> str:
    """What to call a cloud of a batch in an error."""
    sample = samples[index] if samples else None
    return str(getattr(sample, 'lidar_path', None) or f'cloud {index}')
