"""Confusion counts of detections."""

import numpy as np
import pytest
import torch

from mmmap.evaluation import DetectionConfusionMetric, PixelConfusionMetric, box_overlaps, detection_confusion
from mmmap.utils.errors import UserError

BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def truth(boxes, labels, ignored=None):
    return dict(
        bboxes=np.array(boxes).reshape(-1, 4), labels=np.array(labels), ignored=ignored or [False] * len(labels)
    )


def found(boxes, labels, scores):
    return dict(bboxes=np.array(boxes).reshape(-1, 4), labels=np.array(labels), scores=np.array(scores))


def test_overlaps():
    iou, share = box_overlaps([[0, 0, 10, 10], [0, 0, 0, 5]], [[5, 0, 15, 10], [0, 0, 20, 20]])
    np.testing.assert_allclose(iou, [[50 / 150, 0.25], [0, 0]])
    np.testing.assert_allclose(share, [[0.5, 1], [0, 0]])


@pytest.mark.parametrize(
    ('objects', 'detections', 'counts'),
    [
        # Right, missed, of nothing, of another class.
        (truth([BOX], [1]), found([BOX], [1], [0.9]), {(1, 1): 1}),
        (truth([BOX], [1]), found([], [], []), {(1, 2): 1}),
        (truth([], []), found([BOX], [0], [0.9]), {(2, 0): 1}),
        (truth([BOX], [1]), found([BOX], [0], [0.9]), {(1, 0): 1}),
        (truth([BOX], [1]), found([FAR], [1], [0.9]), {(1, 2): 1, (2, 1): 1}),
        # The second of two detections of an object is of nothing.
        (truth([BOX], [1]), found([BOX, [0, 0, 10, 9]], [1, 1], [0.5, 0.9]), {(1, 1): 1, (2, 1): 1}),
        # One of its own class is preferred to one with a higher score.
        (truth([BOX], [1]), found([BOX, BOX], [0, 1], [0.9, 0.4]), {(1, 1): 1, (2, 0): 1}),
        # The object that it overlaps most.
        (truth([BOX, [0, 0, 10, 8]], [0, 1]), found([[0, 0, 10, 8]] * 2, [0, 1], [0.9, 0.9]), {(0, 0): 1, (1, 1): 1}),
        # Too low a score, too little overlap.
        (truth([BOX], [1]), found([BOX], [1], [0.2]), {(1, 2): 1}),
        (truth([BOX], [1]), found([[0, 0, 10, 4]], [1], [0.9]), {(1, 2): 1, (2, 1): 1}),
        # A crowd takes what lies in it, and is never missed.
        (truth([[0, 0, 99, 99]], [1], [True]), found([BOX, FAR], [1, 0], [0.9, 0.9]), {}),
        (truth([[0, 0, 99, 99], BOX], [1, 1], [True, False]), found([BOX], [1], [0.9]), {(1, 1): 1}),
    ],
)
def test_counts(objects, detections, counts):
    expected = np.zeros((3, 3), np.int64)
    for place, count in counts.items():
        expected[place] = count
    assert detection_confusion(objects, detections, 2).tolist() == expected.tolist()


def test_metric_of_detectors():
    tensors = {key: torch.as_tensor(value) for key, value in found([BOX], [1], [0.9]).items()}
    metric = DetectionConfusionMetric(lambda: {7: truth([BOX], [1])}, 2)
    metric.process(None, [dict(img_id=7, pred_instances=tensors)] * 2)
    assert metric.evaluate(2)['confusion_matrix/result'].tolist() == [[0, 0, 0], [0, 2, 0], [0, 0, 0]]
    with pytest.raises(UserError, match='img_id=8, which the test set does not have'):
        metric.process(None, [dict(img_id=8, pred_instances=tensors)])
    with pytest.raises(UserError, match='a detection of class 5, the test set has 2 classes'):
        metric.process(None, [dict(img_id=7, pred_instances=tensors | dict(labels=torch.tensor([5])))])
    with pytest.raises(UserError, match='no boxes'):
        metric.process(None, [dict(img_id=7, pred_panoptic_seg={})])


def test_metric_of_segmentors():
    metric = PixelConfusionMetric(2, ignore_index=9)
    labels = dict(gt_sem_seg=[[0, 1], [1, 9]], pred_sem_seg=[[0, 0], [1, 1]])
    metric.process(None, [{key: dict(data=torch.tensor([value])) for key, value in labels.items()}])
    assert metric.evaluate(1)['confusion_matrix/result'].tolist() == [[1, 0], [1, 1]]
    with pytest.raises(UserError, match='the test images have no labels'):
        metric.process(None, [dict(pred_sem_seg=dict(data=torch.zeros(1, 2, 2)))])
