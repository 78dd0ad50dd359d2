"""Data preprocessors of clouds, and of small images that are cropped batch by batch."""

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import ClsDataPreprocessor, SelfSupDataPreprocessor
from mmpretrain.structures import DataSample

from mmmap.registry import MODELS
from mmmap.structures.point_checks import to_floats

from .batch_crop import BatchRandomResizedCrop


@MODELS.register_module()
class PointDataPreprocessor(BaseDataPreprocessor):
    """Stacks clouds of one size and moves them to the device.

    Args:
        batch_augments (dict, optional): Must be None. mmpretrain's ``ImageClassifier`` passes its ``train_cfg`` here,
            which mixes images; clouds are not mixed.
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
            training (bool): Whether the model is trained. Defaults to False.

        Returns:
            dict: ``inputs``, shape (B, N, 3 + F) in float32, or float64 of whole scenes that need it, and
            ``data_samples``, None if there are none.

        Raises:
            ValueError: If the clouds differ in their points or columns, or, in training, lie too far from the origin
                for float32; one line that names them.
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
            # One copy to the device for the batch, not one for each cloud.
            inputs = torch.stack(list(inputs))
        far = inputs.dtype == torch.float64 and _far_from_origin(inputs)
        if training and far:
            raise ValueError(
                f'{_name(samples, far[0])} lies too far from the origin for float32: PointsNormalize, or LoadScene and '
                'SceneCrop, bring clouds near it'
            )
        inputs = inputs if far else inputs.float()
        return self.cast_data(dict(inputs=inputs, data_samples=samples))


def _far_from_origin(clouds: torch.Tensor) -> list[int]:
    """Indices of the clouds whose points float32 would move."""
    return [i for i, points in enumerate(clouds) if to_floats(points.numpy(force=True)).dtype == np.float64]


def _name(samples: list | None, index: int) -> str:
    """The name of a cloud in an error."""
    sample = samples[index] if samples else None
    return str(getattr(sample, 'lidar_path', None) or f'cloud {index}')


def _labelled_samples(labels: torch.Tensor | None) -> list[DataSample] | None:
    """A data sample of each label of a batch."""
    return None if labels is None else [DataSample().set_gt_label(label) for label in labels.tolist()]


@MODELS.register_module()
class SelfSupCropDataPreprocessor(SelfSupDataPreprocessor):
    """mmpretrain's ``SelfSupDataPreprocessor``, which also crops and flips the training images of a batch at once.

    Takes the batches of ``PackSmallImage``.

    Args:
        crop (dict): Arguments of :class:`BatchRandomResizedCrop`. Other images than those of training stay whole.
        mean, std, to_rgb: See ``SelfSupDataPreprocessor``.
    """

    def __init__(self, crop: dict, mean=None, std=None, to_rgb: bool = False) -> None:
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, non_blocking=True)
        self.crop = BatchRandomResizedCrop(**crop)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch of ``inputs`` (B, c, H, W) and maybe ``gt_label`` (B,), which training does not keep."""
        inputs = self.cast_data(data['inputs'])
        if training:
            inputs = self.crop(inputs)
        samples = None if training else _labelled_samples(data.get('gt_label'))
        return super().forward(dict(inputs=inputs, data_samples=samples), training)


@MODELS.register_module()
class ClsCropDataPreprocessor(ClsDataPreprocessor):
    """mmpretrain's ``ClsDataPreprocessor``, which also crops and flips the training images of a batch at once.

    Takes the batches of ``PackSmallImage``.

    Args:
        crop (dict): Arguments of :class:`BatchRandomResizedCrop`. Other images than those of training stay whole.
        num_classes, mean, std, to_rgb, batch_augments: See ``ClsDataPreprocessor``.
    """

    def __init__(
        self, crop: dict, num_classes: int, mean=None, std=None, to_rgb: bool = False, batch_augments=None
    ) -> None:
        super().__init__(mean=mean, std=std, to_rgb=to_rgb, num_classes=num_classes, batch_augments=batch_augments)
        self.crop = BatchRandomResizedCrop(**crop)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Make a batch of ``inputs`` (B, c, H, W) and maybe ``gt_label`` (B,), cropped and mixed in training."""
        inputs = data['inputs'].to(self.device, non_blocking=True)
        if training:
            inputs = self.crop(inputs)
        return super().forward(dict(inputs=inputs, data_samples=_labelled_samples(data.get('gt_label'))), training)
