"""Scores of parts, by hand."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from mmmap.evaluation import part_iou, part_scores
from mmmap.structures import PointDataSample

PARTS = [(0, 1), (2, 3, 4)]


def test_an_object_by_hand():
    truth, prediction = np.array([0, 0, 0, 1, 255]), np.array([0, 0, 1, 1, 0])
    # 2 / 3 and 1 / 2; what is ignored is in no union.
    assert part_iou(truth, prediction, (0, 1)) == pytest.approx((2 / 3 + 1 / 2) / 2)
    # A part that is nowhere counts as found, one of another category does not help.
    assert part_iou(np.array([2, 2]), np.array([2, 2]), (2, 3, 4)) == 1
    assert part_iou(np.array([2, 2]), np.array([2, 0]), (2, 3, 4)) == pytest.approx((1 / 2 + 1 + 1) / 3)
    assert part_iou(np.array([2, 2]), np.array([3, 3]), (2, 3, 4)) == pytest.approx(1 / 3)
    assert part_iou(np.array([255]), np.array([0]), (0, 1)) is None


def test_means_by_hand():
    scores = part_scores([0.5, 0.7, 0.9], [0, 0, 2], 3)
    np.testing.assert_allclose(scores['IoU'], [60, np.nan, 90])
    assert scores['class_mIoU'] == pytest.approx(75)
    assert scores['instance_mIoU'] == pytest.approx(70)
    with pytest.raises(ValueError, match='nothing to evaluate'):
        part_scores([], [], 3)


def sample(truth, prediction, category):
    scores = torch.nn.functional.one_hot(torch.tensor(prediction), 5).float()
    meta = dict(lidar_path='a.txt') | ({} if category is None else dict(category=category))
    return PointDataSample(metainfo=meta).set_gt_pts_seg(torch.tensor(truth)).set_pred_pts_seg(scores)


@pytest.fixture
def evaluator():
    evaluator = Evaluator(dict(type='PartIoUMetric'))
    evaluator.dataset_meta = dict(category_parts=PARTS, categories=('mug', 'lamp'))
    return evaluator


def test_metric(evaluator):
    objects = [
        ([0, 0, 1, 1], [0, 0, 1, 1], 0),
        ([0, 0, 0, 1], [0, 0, 1, 1], 0),
        ([2, 3, 4, 4], [2, 3, 4, 3], 1),
        ([255, 255, 255, 255], [2, 3, 4, 3], 1),
    ]
    evaluator.process([sample(*item) for item in objects])
    first, second, third = 1, (2 / 3 + 1 / 2) / 2, (1 + 1 / 2 + 1 / 2) / 3
    scores = evaluator.evaluate(4)
    assert scores['class_mIoU'] == pytest.approx(100 * ((first + second) / 2 + third) / 2, abs=1e-3)
    assert scores['instance_mIoU'] == pytest.approx(100 * (first + second + third) / 3, abs=1e-3)


@pytest.mark.parametrize(
    ('truth', 'category', 'culprit'),
    [
        ([0, 1], None, 'a.txt has no category'),
        ([0, 1], 2, 'a.txt has the category 2; the last one is 1'),
        ([0, 2], 0, r'a.txt: a point has the true part 2, but its category has the parts \(0, 1\)'),
        ([0, 1, 1], 0, 'a.txt: 2 predictions for 3 points'),
        ([0, 0.5], 0, 'a.txt: true parts: label 0.5 is not a whole number'),
    ],
)
def test_what_is_wrong_is_named(evaluator, truth, category, culprit):
    with pytest.raises(ValueError, match=culprit):
        evaluator.process([sample(truth, [0, 1], category)])


def test_objects_without_labels_and_data_sets_without_parts(evaluator):
    with pytest.raises(ValueError, match='has no labels: it cannot be scored'):
        evaluator.process([PointDataSample(metainfo=dict(lidar_path='a.txt', category=0))])
    evaluator.dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(ValueError, match='has no category_parts'):
        evaluator.process([sample([0, 1], [0, 1], 0)])
