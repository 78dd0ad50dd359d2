"""A data sample with a label for each point of a cloud."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class PointDataSample(BaseDataElement):
    """True and predicted labels of the points of a cloud, for part or scene segmentation.

    Attributes:
        gt_pts_seg (BaseDataElement): The truth: ``pts_semantic_mask``, (N,) int64, 255 for ignored points.
        pred_pts_seg (BaseDataElement): The prediction: ``pts_semantic_mask`` and, from :class:`PointSegHead`,
            ``scores``, the probabilities (N, classes).
        category (int): Meta information: the category of the object, for part segmentation.
        lidar_path (str): Meta information: the source of the cloud.
        sample_idx (int): Meta information: the index in the data set.
    """

    def set_gt_pts_seg(self, labels: Tensor) -> 'PointDataSample':
        """Set the truth, (N,) int64, and return the sample."""
        self.gt_pts_seg = BaseDataElement(pts_semantic_mask=labels)
        return self

    def set_pred_pts_seg(self, scores: Tensor) -> 'PointDataSample':
        """Set the prediction from probabilities (N, classes), and return the sample."""
        self.pred_pts_seg = BaseDataElement(pts_semantic_mask=scores.argmax(dim=-1), scores=scores)
        return self
