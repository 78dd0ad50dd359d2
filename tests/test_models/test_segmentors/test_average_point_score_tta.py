import pytest
import torch
from point_parts import PointwiseSegmentor

from mmmap.models.segmentors import AveragePointScoreTTA
from mmmap.structures import PointDataSample


def vote(scores, labels=(0, 1)):
    sample = PointDataSample(metainfo=dict(lidar_path='a.txt', category=1))
    return sample.set_gt_pts_seg(torch.tensor(labels)).set_pred_pts_seg(torch.tensor(scores))


def test_probabilities_are_averaged():
    model = AveragePointScoreTTA(PointwiseSegmentor(3, 2))
    merged = model.merge_preds([[vote([[0.6, 0.4], [0.6, 0.4]]), vote([[0.1, 0.9], [0.5, 0.5]])]])
    assert len(merged) == 1 and merged[0].category == 1
    torch.testing.assert_close(merged[0].pred_pts_seg.scores, torch.tensor([[0.35, 0.65], [0.55, 0.45]]))
    assert merged[0].pred_pts_seg.pts_semantic_mask.tolist() == [1, 0]
    assert merged[0].gt_pts_seg.pts_semantic_mask.tolist() == [0, 1]


@pytest.mark.parametrize('other', [vote([[0.5, 0.5]] * 2, (1, 0)), vote([[0.5, 0.5]] * 3, (0, 1, 1))])
def test_points_in_another_order(other):
    with pytest.raises(ValueError, match=r'^a.txt: tta_pipeline must not change which points'):
        AveragePointScoreTTA(PointwiseSegmentor(3, 2)).merge_preds([[vote([[0.5, 0.5]] * 2), other]])
