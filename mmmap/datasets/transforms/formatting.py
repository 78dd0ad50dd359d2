"""The last transforms of pipelines: they pack a sample for a model."""

from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from mmmap.registry import TRANSFORMS
from mmmap.structures import PointDataSample
from mmmap.structures.point_checks import check_points, to_floats
from mmmap.structures.scene_files import whole_numbers


@TRANSFORMS.register_module()
class PackSmallImage(BaseTransform):
    """Pack a small image and its label as tensors, without a data sample.

    A batch is then two tensors. ``PackInputs`` adds a data sample per image. Sending those from a worker takes longer
    than a step of a small model. Data preprocessors for small images, such as :class:`SelfSupCropDataPreprocessor`,
    make the data samples.

    Required key: ``img`` (H, W, c). Used if there: ``gt_label``.
    """

    def transform(self, results: dict) -> dict:
        """Pack a sample as ``inputs`` (c, H, W) and, if it has a label, ``gt_label``."""
        packed: dict[str, Any] = dict(inputs=torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1))))
        if 'gt_label' in results:
            packed['gt_label'] = int(results['gt_label'])
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class PackPointInputs(BaseTransform):
    """Pack a cloud as a tensor and a data sample.

    Required key: ``points``. Used if there: ``pts_semantic_mask`` and ``category``, for a :class:`PointDataSample`;
    ``gt_label``, for mmpretrain's ``DataSample``; ``lidar_path`` and ``sample_idx``.

    Raises:
        ValueError: If the points are not a finite array (N, 3 + F), or labels are not N whole numbers. One line that
            names the cloud.
    """

    def transform(self, results: dict) -> dict:
        """Pack a sample as ``data_samples`` and ``inputs``.

        ``inputs`` are (N, 3 + F), float32, or float64 if float32 would change the shape of the cloud.
        """
        points, name = np.asarray(results['points']), results.get('lidar_path', 'a cloud')
        name = f'{name} (sample_idx {results.get("sample_idx", "unknown")})'
        check_points(points, name)
        meta = {key: results[key] for key in ('lidar_path', 'sample_idx') if key in results}
        numbers = {
            key: whole_numbers(results[key], f'{name}: {key}')
            for key in ('pts_semantic_mask', 'category', 'gt_label')
            if key in results
        }
        if (labels := numbers.get('pts_semantic_mask')) is None:
            sample = DataSample(metainfo=meta)
            if 'gt_label' in numbers:
                sample.set_gt_label(int(numbers['gt_label']))
        else:
            if labels.shape != (len(points),):
                raise ValueError(f'{name}: labels have the shape {labels.shape} for {len(points)} points')
            if 'category' in numbers:
                meta['category'] = int(numbers['category'])
            sample = PointDataSample(metainfo=meta)
            sample.set_gt_pts_seg(torch.from_numpy(labels))
        return dict(inputs=torch.from_numpy(to_floats(points)), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
