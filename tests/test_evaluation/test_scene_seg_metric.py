"""The scores of scenes against numbers counted by hand."""

import json

import numpy as np
import pytest
import torch

from mmmap.evaluation import SceneSegMetric, confusion_counts, segmentation_scores

# By hand, with the last point of the first scene ignored:
#         predicted a  b  c  d
#   true a          2  1  0  0
#        b          0  2  0  0
#        c          1  0  1  0
#        d          0  0  0  0
TRUTH = [0, 0, 0, 1, 255], [1, 2, 2]
PREDICTION = [0, 0, 1, 1, 2], [1, 2, 0]
COUNTS = [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
# IoU: a 2 / (3 + 3 - 2), b 2 / (2 + 3 - 2), c 1 / (2 + 1 - 1), d does not occur.
IOU = [50.0, 200 / 3, 50.0]
ACC = [200 / 3, 100.0, 50.0]


def sample(truth, prediction):
    return dict(
        lidar_path='room.npz',
        gt_pts_seg=dict(pts_semantic_mask=torch.tensor(truth)),
        pred_pts_seg=dict(pts_semantic_mask=torch.tensor(prediction)),
    )


@pytest.fixture
def metric(tmp_path):
    metric = SceneSegMetric(confusion_file=str(tmp_path / 'out' / 'counts.json'))
    metric.dataset_meta = dict(classes=('a', 'b', 'c', 'd'))
    return metric


def test_scores_by_hand(metric, tmp_path):
    for truth, prediction in zip(TRUTH, PREDICTION, strict=True):
        metric.process(None, [sample(truth, prediction)])
    scores = metric.evaluate(2)
    assert scores == pytest.approx(dict(mIoU=sum(IOU) / 3, mAcc=sum(ACC) / 3, OA=500 / 7), abs=1e-3)
    stored = json.loads((tmp_path / 'out' / 'counts.json').read_text())
    assert stored == dict(classes=['a', 'b', 'c', 'd'], counts=COUNTS)


def test_scores_of_each_class():
    scores = segmentation_scores(np.array(COUNTS))
    assert scores['IoU'][:3] == pytest.approx(IOU) and np.isnan(scores['IoU'][3])
    assert scores['Acc'][:3] == pytest.approx(ACC) and np.isnan(scores['Acc'][3])
    # A class that does not occur but is predicted counts as 0.
    wrong = np.array([[1, 1], [0, 0]])
    assert segmentation_scores(wrong)['mIoU'] == pytest.approx(25.0)
    assert segmentation_scores(wrong)['mAcc'] == pytest.approx(50.0)


def test_the_sum_is_over_points_not_scenes(metric):
    metric.process(None, [sample([0] * 90 + [1] * 10, [0] * 100), sample([1], [1])])
    # a: 90 / 100, b: 1 / 11.
    assert metric.evaluate(2)['mIoU'] == pytest.approx((90 + 100 / 11) / 2, abs=1e-3)


def test_scenes_without_labels_are_left_out(metric, caplog):
    unlabelled = dict(sample([0], [0]), lidar_path='bare.npz')
    del unlabelled['gt_pts_seg']
    for truth, prediction in zip(TRUTH, PREDICTION, strict=True):
        metric.process(None, [sample(truth, prediction), unlabelled])
    with caplog.at_level('WARNING'):
        scores = metric.evaluate(4)
    assert scores == pytest.approx(dict(mIoU=sum(IOU) / 3, mAcc=sum(ACC) / 3, OA=500 / 7), abs=1e-3)
    metric.process(None, [unlabelled])
    metric.process(None, [sample([255, 255], [0, 1])])
    with caplog.at_level('WARNING'):
        assert metric.evaluate(2) == {}


def test_what_does_not_fit_is_named(metric):
    with pytest.raises(ValueError, match=r'room\.npz: true labels: .*7 \(1\), are none of the classes 0 to 3'):
        metric.process(None, [sample([0, 7], [0, 0])])
    with pytest.raises(ValueError, match=r'room\.npz: true labels: label 1.5 is not a whole number'):
        metric.process(None, [sample([0, 1.5], [0, 0])])
    with pytest.raises(ValueError, match=r'room\.npz: 1 predictions for 2 points'):
        metric.process(None, [sample([0, 1], [0])])
    metric.dataset_meta = {}
    with pytest.raises(ValueError, match='the data set names no classes'):
        metric.process(None, [sample([0], [0])])
    with pytest.raises(ValueError, match='no point has a label'):
        segmentation_scores(confusion_counts(np.array([255]), np.array([0]), 2))
