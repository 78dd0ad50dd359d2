import pytest
import torch

from mmmap.models.heads import PointSegHead
from mmmap.structures import PointDataSample


def sample(labels, category=0):
    return PointDataSample(metainfo=dict(category=category)).set_gt_pts_seg(torch.tensor(labels))


def test_loss_is_the_mean_over_the_labelled_points_of_the_batch():
    head = PointSegHead(4, 3).eval()
    features = torch.randn(2, 3, 4)
    loss = head.loss(features, [sample([0, 255, 2]), sample([255, 255, 1])])['loss']
    logs = head(features).log_softmax(-1)
    expected = -(logs[0, 0, 0] + logs[0, 2, 2] + logs[1, 2, 1]) / 3
    torch.testing.assert_close(loss, expected)


def test_a_batch_without_labels_teaches_nothing():
    head = PointSegHead(4, 3)
    loss = head.loss(torch.randn(1, 2, 4), [sample([255, 255])])['loss']
    loss.backward()
    assert loss == 0 and not head.classifier.weight.grad.any()
    bare = PointDataSample(metainfo=dict(lidar_path='bare.npz'))
    with pytest.raises(ValueError, match=r'bare\.npz has no labels'):
        head.loss(torch.randn(2, 2, 4), [sample([0, 1]), bare])


def test_predictions_are_among_the_parts_of_the_category():
    features = torch.randn(2, 50, 4)
    free, bound = PointSegHead(4, 5).eval(), PointSegHead(4, 5, category_parts=[(0, 1), (2, 3, 4)]).eval()
    bound.load_state_dict(free.state_dict())
    samples = bound.predict(features, [sample([0] * 50, category) for category in (1, 0)])
    logits = free(features)
    for logit, drawn, parts in zip(logits, samples, ([2, 3, 4], [0, 1]), strict=True):
        prediction = drawn.pred_pts_seg
        assert prediction.pts_semantic_mask.tolist() == [parts[i] for i in logit[:, parts].argmax(1)]
        torch.testing.assert_close(prediction.scores[:, parts], logit[:, parts].softmax(1))
        torch.testing.assert_close(prediction.scores.sum(1), torch.ones(50))
    for found in (free.predict(features), bound.predict(features)):
        assert torch.equal(torch.stack([s.pred_pts_seg.pts_semantic_mask for s in found]), logits.argmax(-1))


@pytest.mark.parametrize('parts', [[(0, 5)], [(0,), ()]])
def test_parts_that_are_none(parts):
    with pytest.raises(ValueError, match=r'category_parts\[\d\]'):
        PointSegHead(4, 5, category_parts=parts)
