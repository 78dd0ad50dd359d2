"""The last transforms of pipelines."""

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmpretrain.structures import DataSample

from mmmap.registry import TRANSFORMS
from mmmap.structures import PointDataSample


@TRANSFORMS.register_module()
class PackSmallImage(BaseTransform):
    """Make a model's input of a small image, and nothing more than that of its label.

    A batch then is two tensors. ``PackInputs`` makes a data sample an image, which cost more time on their way from a
    worker than the step of a small model does. The data preprocessors for small images, such as
    :class:`SelfSupCropDataPreprocessor`, make the samples.

    Required key: ``img`` (H, W, c). Used if there: ``gt_label``.
    """

    def transform(self, results: dict) -> dict:
        """Pack a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: ``inputs``, shape (c, H, W), and ``gt_label`` if it has one.
        """
        packed = dict(inputs=torch.from_numpy(np.ascontiguousarray(results['img'].transpose(2, 0, 1))))
        if 'gt_label' in results:
            packed['gt_label'] = int(results['gt_label'])
        return packed

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


@TRANSFORMS.register_module()
class PackPointInputs(BaseTransform):
    """Make a model's input and a data sample of a cloud.

    Required key: ``points``. Used if there: ``pts_semantic_mask``, which makes it a :class:`PointDataSample` with
    ``category``; ``gt_label``, which goes into mmpretrain's ``DataSample``; ``lidar_path`` and ``sample_idx``.

    Raises:
        ValueError: If the points are not a finite array (N, 3 + F) with a label each; one line that names the cloud.
    """

    def transform(self, results: dict) -> dict:
        """Pack a sample.

        Args:
            results (dict): A sample.

        Returns:
            dict: ``inputs``, (N, 3 + F) float32, and ``data_samples``.
        """
        points = np.asarray(results['points'])
        labels = results.get('pts_semantic_mask')
        self._check(results, points, labels)
        meta = {key: results[key] for key in ('lidar_path', 'sample_idx') if key in results}
        if labels is None:
            sample = DataSample(metainfo=meta)
            if 'gt_label' in results:
                sample.set_gt_label(int(results['gt_label']))
        else:
            if 'category' in results:
                meta['category'] = int(results['category'])
            sample = PointDataSample(metainfo=meta)
            sample.set_gt_pts_seg(torch.from_numpy(np.array(labels, np.int64)))
        return dict(inputs=torch.from_numpy(np.array(points, np.float32)), data_samples=sample)

    @staticmethod
    def _check(results: dict, points: np.ndarray, labels: np.ndarray | None) -> None:
        fault = None
        if points.ndim != 2 or points.shape[1] < 3:
            fault = f'points have the shape {points.shape}, not (N, 3 + F)'
        elif not len(points):
            fault = 'it has no points'
        elif not np.isfinite(points).all():
            fault = f'point {int(np.flatnonzero(~np.isfinite(points).all(1))[0])} is not finite'
        elif labels is not None and np.shape(labels) != (len(points),):
            fault = f'labels have the shape {np.shape(labels)} for {len(points)} points'
        if fault:
            name, index = results.get('lidar_path', 'a cloud'), results.get('sample_idx', 'unknown')
            raise ValueError(f'{name} (sample_idx {index}): {fault}')

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
