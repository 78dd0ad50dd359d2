import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mmmap.datasets import PackPointInputs
from mmmap.structures import PointDataSample

POINTS = np.arange(20, dtype='float16').reshape(5, 4)


def test_a_shape():
    packed = PackPointInputs()(dict(points=POINTS, gt_label=np.int64(7), lidar_path='a.txt', sample_idx=3, extra=1))
    assert packed['inputs'].dtype == torch.float32
    assert packed['inputs'].tolist() == POINTS.tolist()
    sample = packed['data_samples']
    assert isinstance(sample, DataSample)
    assert (sample.gt_label.item(), sample.lidar_path, sample.sample_idx) == (7, 'a.txt', 3)
    assert 'gt_label' not in PackPointInputs()(dict(points=POINTS))['data_samples']


def test_parts():
    packed = PackPointInputs()(
        dict(points=POINTS, pts_semantic_mask=np.arange(5, dtype='uint8'), category=2, lidar_path='a.txt')
    )
    sample = packed['data_samples']
    assert isinstance(sample, PointDataSample)
    assert sample.gt_pts_seg.pts_semantic_mask.tolist() == [0, 1, 2, 3, 4]
    assert sample.gt_pts_seg.pts_semantic_mask.dtype == torch.int64
    assert (sample.category, sample.lidar_path) == (2, 'a.txt')


def test_the_tensors_are_copies():
    points = POINTS.astype('float32')
    PackPointInputs()(dict(points=points))['inputs'].zero_()
    assert points.any()


@pytest.mark.parametrize(
    ('changes', 'culprit'),
    [
        (dict(points=np.zeros(6)), r'the shape \(6,\)'),
        (dict(points=np.zeros((6, 2))), r'the shape \(6, 2\)'),
        (dict(points=np.zeros((0, 3))), 'it has no points'),
        (dict(points=np.array([[0, 0, 0], [0, np.nan, 0]])), 'point 1 is not finite'),
        (dict(pts_semantic_mask=np.zeros(4)), r'the shape \(4,\) for 5 points'),
        (dict(pts_semantic_mask=np.full(5, 0.5)), 'pts_semantic_mask: label 0.5 is not a whole number'),
        (dict(pts_semantic_mask=np.zeros(5), category=1.7), 'category: label 1.7 is not a whole number'),
        (dict(gt_label=np.float32(2.5)), 'gt_label: label 2.5 is not a whole number'),
    ],
)
def test_what_is_wrong_is_named(changes, culprit):
    with pytest.raises(ValueError, match=rf'^a.txt \(sample_idx 3\): .*{culprit}'):
        PackPointInputs()(dict(points=POINTS, lidar_path='a.txt', sample_idx=3) | changes)
