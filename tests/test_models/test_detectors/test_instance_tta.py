"""Merging of the detections in several views of an image."""

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from mmmap.models.detectors import InstanceTTAModel
from mmmap.utils.errors import UserError

pytest.importorskip('mmcv._ext')
structures = pytest.importorskip('mmdet.structures')


class Detector(BaseModel):
    def __init__(self, test_cfg=None):
        super().__init__()
        self.test_cfg = test_cfg

    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


def view(boxes, scores, labels=None, flip=None, masks=None):
    found = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), scores=torch.tensor(scores))
    found.labels = torch.tensor(labels or [0] * len(scores), dtype=torch.long)
    if masks is not None:
        found.masks = masks
    meta = dict(ori_shape=(20, 40), flip=flip is not None, flip_direction=flip)
    sample = structures.DetDataSample(metainfo=meta)
    sample.pred_instances = found
    return sample


def box_mask(box):
    left, top, right, bottom = box
    mask = torch.zeros(1, 20, 40, dtype=torch.bool)
    mask[:, top:bottom, left:right] = True
    return mask


@pytest.mark.parametrize(
    ('flip', 'seen'), [('horizontal', [30, 2, 36, 8]), ('vertical', [4, 12, 10, 18]), ('diagonal', [30, 12, 36, 18])]
)
def test_views_are_mirrored_back_with_their_masks(flip, seen):
    box = [4, 2, 10, 8]
    first = view([], [], masks=torch.zeros(0, 20, 40, dtype=torch.bool))
    (merged,) = InstanceTTAModel(Detector()).merge_preds([[first, view([seen], [0.5], None, flip, box_mask(seen))]])
    assert merged.pred_instances.bboxes.tolist() == [box]
    assert torch.equal(merged.pred_instances.masks, box_mask(box))


def test_overlaps_within_a_class_are_suppressed_and_the_best_mask_stays():
    box, near, other = [4, 2, 10, 8], [4, 2, 10, 9], [20, 2, 30, 8]
    views = [
        view([box, other], [0.5, 0.2], [0, 0], None, torch.cat([box_mask(box), box_mask(other)])),
        view([near, near], [0.8, 0.4], [0, 1], None, torch.cat([box_mask(near), box_mask(near)])),
    ]
    (merged,) = InstanceTTAModel(Detector()).merge_preds([views])
    found = merged.pred_instances
    assert found.scores.tolist() == pytest.approx([0.8, 0.4, 0.2]) and found.labels.tolist() == [0, 1, 0]
    assert found.bboxes.tolist() == [near, near, other]
    assert torch.equal(found.masks, torch.cat([box_mask(near), box_mask(near), box_mask(other)]))


def test_settings_are_those_of_the_detector():
    rcnn = dict(nms=dict(type='nms', iou_threshold=0.95), max_per_img=1)
    for test_cfg in (rcnn, dict(rpn=dict(nms=None), rcnn=rcnn)):
        for changes, scores in (({}, [0.6]), (dict(max_per_img=2), [0.6, 0.5])):
            views = [view([[0, 0, 10, 10]], [0.5]), view([[0, 0, 10, 9]], [0.6])]
            (merged,) = InstanceTTAModel(Detector(test_cfg), **changes).merge_preds([views])
            assert merged.pred_instances.scores.tolist() == pytest.approx(scores)


def test_views_without_anything():
    (merged,) = InstanceTTAModel(Detector()).merge_preds([[view([], []), view([], [])]])
    assert len(merged.pred_instances) == 0


def test_what_has_no_boxes_is_refused():
    without = view([[0, 0, 0, 0]], [0.5], masks=box_mask([0, 0, 5, 5]))
    with pytest.raises(UserError, match='--tta: Detector gives masks without boxes'):
        InstanceTTAModel(Detector()).merge_preds([[without]])
    del without.pred_instances
    with pytest.raises(UserError, match='--tta: Detector gives no boxes'):
        InstanceTTAModel(Detector()).merge_preds([[without]])
