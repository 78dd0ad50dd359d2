"""The metric of part segmentation."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmmap.registry import METRICS
from mmmap.structures.scene_files import IGNORED

from ..part_scores import part_iou, part_scores


@METRICS.register_module()
class PartIoUMetric(BaseMetric):
    """Class mIoU and instance mIoU. The mean IoU of each category is logged.

    The score of an object is its mean IoU over the parts of its category. The instance mIoU is the mean of all objects,
    the class mIoU the mean of the categories' means. The data set's ``metainfo`` must have the parts of each category,
    ``category_parts``, and may have their names, ``categories``.

    Args:
        ignore_index (int): Points with this label are not counted. Defaults to 255.
        collect_device (str): 'cpu' or 'gpu': the device on which ranks exchange results. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the names of the scores. Defaults to None.
    """

    def __init__(self, ignore_index: int = IGNORED, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    @property
    def category_parts(self) -> Sequence[Sequence[int]]:
        """The parts of each category of the data set."""
        parts = (self.dataset_meta or {}).get('category_parts')
        if not parts:
            raise ValueError('PartIoUMetric: the metainfo of the data set has no category_parts')
        return parts

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Score objects.

        Args:
            data_batch (dict, optional): Not used.
            data_samples (Sequence[dict]): Objects with ``category``, ``gt_pts_seg`` and ``pred_pts_seg``; the last two
                have ``pts_semantic_mask``.

        Raises:
            ValueError: If an object has no category, no labels, or wrong ones. The message names its file.
        """
        for sample in data_samples:
            name, category = sample.get('lidar_path', 'an object'), sample.get('category')
            if category is None or 'gt_pts_seg' not in sample:
                raise ValueError(f'{name} has no {"category" if category is None else "labels"}: it cannot be scored')
            if not 0 <= category < len(self.category_parts):
                raise ValueError(f'{name} has the category {category}; the last one is {len(self.category_parts) - 1}')
            truth, prediction = (
                torch.as_tensor(sample[key]['pts_semantic_mask']).cpu().numpy()
                for key in ('gt_pts_seg', 'pred_pts_seg')
            )
            try:
                iou = part_iou(truth, prediction, self.category_parts[category], self.ignore_index)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from None
            # None is kept too: a distributed test expects one result per object.
            self.results.append((category, iou))

    def compute_metrics(self, results: list[tuple[int, float | None]]) -> dict[str, float]:
        """``class_mIoU`` and ``instance_mIoU`` in percent, from the category and the IoU (or None) of each object."""
        scored = [(category, iou) for category, iou in results if iou is not None]
        categories, ious = zip(*scored, strict=True) if scored else ((), ())
        count = len(self.category_parts)
        scores = part_scores(ious, categories, count)
        names = self.dataset_meta.get('categories') or [str(index) for index in range(count)]
        width = max(map(len, names))
        rows = [f'{name:{width}}  {iou:6.2f}' for name, iou in zip(names, scores['IoU'], strict=True)]
        MMLogger.get_current_instance().info('\n'.join(['IoU of the categories (%)', *rows]))
        return dict(class_mIoU=round(scores['class_mIoU'], 4), instance_mIoU=round(scores['instance_mIoU'], 4))
