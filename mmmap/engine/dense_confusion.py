"""Makes the confusion metric of a segmentor or detector from the config of its test."""

from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.evaluator import BaseMetric

from ..evaluation import DetectionConfusionMetric, PixelConfusionMetric
from ..utils.errors import UserError
from .class_labels import dataset_classes
from .config_parts import dense_kind, walk
from .wrapped_datasets import leaf_datasets

_WHERE = 'test_dataloader.dataset'


def dense_confusion_metric(cfg: Config, dataset: Any, iou_thr: float, score_thr: float) -> BaseMetric:
    """The confusion metric of a segmentor or detector.

    Args:
        cfg (Config): The config of its test.
        dataset (Any): The test set.
        iou_thr (float): Of detectors: least IoU of an object with a detection.
        score_thr (float): Of detectors: detections with a lower score are not counted.

    Raises:
        UserError: If the test set names no classes.
    """
    classes = dataset_classes(dataset, _WHERE)
    if classes is None:
        raise UserError(f'{_WHERE} names no classes: give it metainfo=dict(classes=[...])')
    if dense_kind(cfg) == 'segmentor':
        return PixelConfusionMetric(len(classes), _ignored_label(cfg))
    return DetectionConfusionMetric(lambda: true_objects(dataset), len(classes), iou_thr, score_thr)


def _ignored_label(cfg: Config) -> int:
    """The label that the metrics of the test leave out."""
    parts = (part for _, part in walk(cfg.get('test_evaluator')) if isinstance(part, dict))
    return next((part['ignore_index'] for part in parts if 'ignore_index' in part), 255)


def true_objects(dataset: Any) -> dict[Any, dict[str, np.ndarray]]:
    """The true objects of each image of a data set of mmdet, by ``img_id``, in pixels of the file.

    Raises:
        UserError: If two images have the same ``img_id``.
    """
    objects: dict[Any, dict[str, np.ndarray]] = {}
    for where, leaf in leaf_datasets(dataset, _WHERE):
        for index in range(len(leaf)):
            info = leaf.get_data_info(index)
            if info['img_id'] in objects:
                raise UserError(
                    f'{where}: a second image with img_id={info["img_id"]!r}: predictions tell images by it'
                )
            instances = info.get('instances', [])
            objects[info['img_id']] = dict(
                bboxes=np.array([part['bbox'] for part in instances], np.float64).reshape(-1, 4),
                labels=np.array([part['bbox_label'] for part in instances], np.int64),
                ignored=np.array([part.get('ignore_flag', 0) for part in instances], bool),
            )
    return objects
