"""Test-time augmentation of clouds: averaged scores of the points."""

from mmengine.model import BaseTTAModel

from mmmap.registry import MODELS
from mmmap.structures import PointDataSample


@MODELS.register_module()
class AveragePointScoreTTA(BaseTTAModel):
    """Averages the probabilities that a :class:`PointSegmentor` gives the points of several versions of a cloud.

    The ``tta_pipeline`` must keep the points and their order: :class:`PointsScaleTranslate` does.
    """

    def merge_preds(self, data_samples_list: list[list[PointDataSample]]) -> list[PointDataSample]:
        """Average the votes.

        Args:
            data_samples_list (list[list[PointDataSample]]): For each cloud the samples of its versions.

        Returns:
            list[PointDataSample]: A sample for each cloud.

        Raises:
            ValueError: If the labels of two versions differ: their points are others, or in another order.
        """
        merged = []
        for versions in data_samples_list:
            first = versions[0]
            for other in versions[1:]:
                truths = [sample.gt_pts_seg.pts_semantic_mask for sample in (first, other) if 'gt_pts_seg' in sample]
                scores = [sample.pred_pts_seg.scores for sample in (first, other)]
                if scores[0].shape != scores[1].shape or (len(truths) == 2 and not truths[0].equal(truths[1])):
                    name = first.get('lidar_path', 'a cloud')
                    raise ValueError(f'{name}: tta_pipeline must not change which points there are or their order')
            scores = sum(sample.pred_pts_seg.scores for sample in versions) / len(versions)
            merged.append(first.new().set_pred_pts_seg(scores))
        return merged
