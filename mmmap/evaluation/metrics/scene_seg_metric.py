"""The metric of semantic segmentation of point-cloud scenes."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log

from mmmap.registry import METRICS
from mmmap.structures.scene_files import IGNORED

from ..confusion import confusion_counts, score_table, segmentation_scores


def _labels(segmentation: dict) -> np.ndarray:
    return torch.as_tensor(segmentation['pts_semantic_mask']).cpu().numpy().reshape(-1)


@METRICS.register_module()
class SceneSegMetric(BaseMetric):
    """mIoU, mAcc and OA over the points of all scenes. A table of the classes is logged.

    Scores are computed from the counts of the whole test set, as the benchmarks of S3DIS and ScanNet do. Scenes without
    a labelled point, such as the test scenes of ScanNet, are not counted; a warning tells how many. Only the counts of
    each scene are kept, so that ranks exchange little.

    Args:
        ignore_index (int): Points with this label are not counted. Defaults to 255.
        confusion_file (str, optional): A JSON file to write ``classes`` and ``counts`` to, for
            ``tools/analysis_tools/sum_confusions.py``, which joins the folds of a cross-validation.
        collect_device (str): 'cpu' or 'gpu': the device on which ranks exchange results. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the names of the scores. Defaults to None.
    """

    def __init__(
        self,
        ignore_index: int = IGNORED,
        confusion_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index
        self.confusion_file = confusion_file

    @property
    def classes(self) -> Sequence[str]:
        """Names of the data set's classes."""
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError("SceneSegMetric: the data set names no classes: set its metainfo=dict(classes=('...', ))")
        return classes

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Count the points of scenes.

        Args:
            data_batch (dict, optional): Not used.
            data_samples (Sequence[dict]): Scenes with ``pred_pts_seg`` and, if labelled, ``gt_pts_seg``; both have
                ``pts_semantic_mask``.

        Raises:
            ValueError: If the labels of a scene are wrong. The message names its file.
        """
        for sample in data_samples:
            name = sample.get('lidar_path', 'a scene')
            if 'pts_semantic_mask' not in (sample.get('gt_pts_seg') or {}):
                # The name is kept: a distributed test expects one result per scene.
                self.results.append(name)
                continue
            try:
                truth, prediction = _labels(sample['gt_pts_seg']), _labels(sample['pred_pts_seg'])
                counts = confusion_counts(truth, prediction, len(self.classes), self.ignore_index)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from None
            self.results.append(counts if counts.any() else name)

    def compute_metrics(self, results: list[np.ndarray | str]) -> dict[str, float]:
        """``mIoU``, ``mAcc`` and ``OA`` in percent, nothing if no scene has labels.

        Args:
            results (list[np.ndarray | str]): The counts of each scene, or its name if it has no labelled point.
        """
        unlabelled = [result for result in results if isinstance(result, str)]
        if unlabelled:
            outcome = 'there are no scores' if len(unlabelled) == len(results) else 'they are not in the scores'
            first = unlabelled[0]
            message = f'{len(unlabelled):,} of {len(results):,} scenes have no labels ({first} first): {outcome}'
            print_log(message, 'current', logging.WARNING)
        if len(unlabelled) == len(results):
            return {}
        counts = np.sum([result for result in results if not isinstance(result, str)], axis=0)
        MMLogger.get_current_instance().info('\n' + score_table(counts, self.classes))
        if self.confusion_file:
            path = Path(self.confusion_file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dict(classes=list(self.classes), counts=counts.tolist())) + '\n')
        scores = segmentation_scores(counts)
        return dict(mIoU=round(scores['mIoU'], 4), mAcc=round(scores['mAcc'], 4), OA=round(scores['OA'], 4))
