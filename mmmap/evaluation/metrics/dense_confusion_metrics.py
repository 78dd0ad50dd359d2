"""Confusion matrices of segmentors and detectors as metrics."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric

from mmmap.registry import METRICS
from mmmap.utils.errors import UserError

from ..confusion import confusion_counts
from ..detection_confusion import detection_confusion


class _ConfusionMetric(BaseMetric):
    """Sums counts over images. Only the counts of a batch are kept, so that ranks exchange little."""

    default_prefix = 'confusion_matrix'

    def counts_of(self, sample: dict) -> np.ndarray:
        """The counts of one image."""
        raise NotImplementedError

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count a batch."""
        self.results.append(sum(self.counts_of(sample) for sample in data_samples))

    def compute_metrics(self, results: list) -> dict:
        """The sum of all counts, ``result``: (C, C), one row per true class."""
        return dict(result=torch.as_tensor(np.asarray(sum(results))))


@METRICS.register_module()
class PixelConfusionMetric(_ConfusionMetric):
    """Confusion matrix of a segmentor of mmseg, over all pixels that have a class.

    Args:
        num_classes (int): Number of classes.
        ignore_index (int): Pixels with this true label are not counted. Defaults to 255.
    """

    def __init__(self, num_classes: int, ignore_index: int = 255, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes, self.ignore_index = num_classes, ignore_index

    def counts_of(self, sample: dict) -> np.ndarray:
        """The counts of one image.

        Raises:
            UserError: If the image has no labels.
        """
        if 'gt_sem_seg' not in sample:
            raise UserError('the test images have no labels: the pipeline of the test needs LoadAnnotations')
        truth, found = (_array(sample[key]['data']).reshape(-1) for key in ('gt_sem_seg', 'pred_sem_seg'))
        return confusion_counts(truth.astype(np.int64), found.astype(np.int64), self.num_classes, self.ignore_index)


@METRICS.register_module()
class DetectionConfusionMetric(_ConfusionMetric):
    """Confusion matrix of a detector of mmdet, see :func:`mmmap.evaluation.detection_confusion`.

    Args:
        truth (Callable[[], dict]): Returns the true objects of each image, by its ``img_id``, as
            ``detection_confusion`` takes them. It is called when the test has begun.
        num_classes (int): Number of classes.
        iou_thr (float): Least IoU of an object with a detection. Defaults to 0.5.
        score_thr (float): Detections with a lower score are not counted. Defaults to 0.3.
    """

    def __init__(
        self,
        truth: Callable[[], dict],
        num_classes: int,
        iou_thr: float = 0.5,
        score_thr: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.read_truth, self.num_classes, self.iou_thr, self.score_thr = truth, num_classes, iou_thr, score_thr
        self.truth: dict | None = None

    def counts_of(self, sample: dict) -> np.ndarray:
        """The counts of one image.

        Raises:
            UserError: If the detector gives no boxes, or images or classes that the data set does not have.
        """
        self.truth = self.read_truth() if self.truth is None else self.truth
        name, found = sample.get('img_id'), sample.get('pred_instances')
        if found is None or 'bboxes' not in found:
            raise UserError('the predictions have no boxes, by which a confusion matrix compares objects')
        if name not in self.truth:
            raise UserError(f'predictions of an image with img_id={name!r}, which the test set does not have')
        arrays = {key: _array(found[key]) for key in ('bboxes', 'labels', 'scores')}
        if len(arrays['labels']) and arrays['labels'].max() >= self.num_classes:
            raise UserError(
                f'a detection of class {arrays["labels"].max()}, the test set has {self.num_classes} classes: '
                'num_classes of the head must be their number'
            )
        return detection_confusion(self.truth[name], arrays, self.num_classes, self.iou_thr, self.score_thr)


def _array(values: Any) -> np.ndarray:
    return torch.as_tensor(values).cpu().numpy()
