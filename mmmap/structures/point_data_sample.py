"""What is known and predicted of the points of a cloud."""

from mmengine.structures import BaseDataElement
from torch import Tensor


class PointDataSample(BaseDataElement):
    """Labels of the points of a cloud, of a part segmentation or of a scene.

    Attributes:
        gt_pts_seg (BaseDataElement): The truth: ``pts_semantic_mask``, (N,) int64, 255 for points that do not count.
        pred_pts_seg (BaseDataElement): The prediction: ``pts_semantic_mask`` and, from :class:`PointSegHead`,
            ``scores``, the probabilities (N, classes).
        category (int): Meta information: the category of the object whose parts these are.
        lidar_path (str): Meta information: where the cloud comes from.
        sample_idx (int): Meta information: its index in the data set.
    """

    def set_gt_pts_seg(self, labels: Tensor) -> 'PointDataSample':
        """Set the truth, (N,) int64, and return the sample."""
        self.gt_pts_seg = BaseDataElement(pts_semantic_mask=labels)
        return self

    def set_pred_pts_seg(self, scores: Tensor) -> 'PointDataSample':
        """Set the prediction from probabilities (N, classes), and return the sample."""
        self.pred_pts_seg = BaseDataElement(pts_semantic_mask=scores.argmax(dim=-1), scores=scores)
        return self
