"""The metric of the segmentation of objects into parts."""

from collections.abc import Sequence

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger

from mmmap.registry import METRICS
from mmmap.structures.scene_files import IGNORED

from ..parts import part_iou, part_scores


@METRICS.register_module()
class PartIoUMetric(BaseMetric):
    """Class mIoU and instance mIoU, and the score of each category in the log.

    The score of an object is the mean IoU over the parts of its category; the instance mIoU is the mean of all objects,
    the class mIoU that of the categories' means. The data set tells the parts of each category,
    ``metainfo['category_parts']``, and their names, ``metainfo['categories']``.

    Args:
        ignore_index (int): Points with this label are left out. Defaults to 255.
        collect_device (str): 'cpu' or 'gpu', over which ranks exchange scores. Defaults to 'cpu'.
        prefix (str, optional): Before the names of the scores. Defaults to None.
    """

    def __init__(self, ignore_index: int = IGNORED, collect_device: str = 'cpu', prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.ignore_index = ignore_index

    @property
    def category_parts(self) -> Sequence[Sequence[int]]:
        """The parts of each category of the data set."""
        parts = (self.dataset_meta or {}).get('category_parts')
        if not parts:
            raise ValueError('PartIoUMetric: the data set tells no parts: its metainfo has no category_parts')
        return parts

    def process(self, data_batch: dict | None, data_samples: Sequence[dict]) -> None:
        """Score some objects.

        Args:
            data_batch (dict, optional): Not used.
            data_samples (Sequence[dict]): With ``category``, and ``gt_pts_seg`` and ``pred_pts_seg``, each with
                ``pts_semantic_mask``.

        Raises:
            ValueError: If an object has no category or labels, or they do not fit; one line that names it.
        """
        for sample in data_samples:
            name, category = sample.get('lidar_path', 'an object'), sample.get('category')
            if category is None or 'gt_pts_seg' not in sample:
                raise ValueError(f'{name} has no {"category" if category is None else "labels"}: it cannot be scored')
            if not 0 <= category < len(self.category_parts):
                raise ValueError(f'{name} has the category {category}; there are {len(self.category_parts)}')
            truth, prediction = (
                torch.as_tensor(sample[key]['pts_semantic_mask']).cpu().numpy()
                for key in ('gt_pts_seg', 'pred_pts_seg')
            )
            try:
                iou = part_iou(truth, prediction, self.category_parts[category], self.ignore_index)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from None
            # Kept all the same: a distributed test cuts the list to as many results as there are objects.
            self.results.append((category, iou))

    def compute_metrics(self, results: list[tuple[int, float | None]]) -> dict[str, float]:
        """Scores of the whole test set.

        Args:
            results (list[tuple[int, float | None]]): Category and score of each object, None for one without labels.

        Returns:
            dict[str, float]: ``class_mIoU`` and ``instance_mIoU``, in percent.
        """
        scored = [(category, iou) for category, iou in results if iou is not None]
        categories, ious = zip(*scored, strict=True) if scored else ((), ())
        count = len(self.category_parts)
        scores = part_scores(ious, categories, count)
        names = self.dataset_meta.get('categories') or [str(index) for index in range(count)]
        width = max(map(len, names))
        rows = [f'{name:{width}}  {iou:6.2f}' for name, iou in zip(names, scores['IoU'], strict=True)]
        MMLogger.get_current_instance().info('\n'.join(['IoU of the categories (%)', *rows]))
        return {name: round(scores[name], 4) for name in ('class_mIoU', 'instance_mIoU')}
