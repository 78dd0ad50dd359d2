import pytest
import torch
from point_parts import GroupBackbone, clouds

from mmmap.models.heads import PointSegHead
from mmmap.models.necks import FeaturePropagation
from mmmap.models.segmentors import PointSegmentor
from mmmap.structures import PointDataSample


def build(num_categories=2, category_parts=((0, 1), (2, 3, 4)), classes=5):
    neck = FeaturePropagation(8, 16, num_taps=2, num_categories=num_categories)
    head = PointSegHead(16, classes, dropout=0.0, category_parts=category_parts)
    return PointSegmentor(GroupBackbone(), neck, head)


def samples(labels, categories=(0, 1)):
    return [
        PointDataSample(metainfo=dict(category=category, lidar_path=f'{category}.txt')).set_gt_pts_seg(mask)
        for mask, category in zip(labels, categories, strict=True)
    ]


def data():
    """Parts by the sign of x, of two categories."""
    points = clouds()
    return points, (points[..., 0] > 0).long() + torch.tensor([[0], [2]])


def test_modes():
    model, (points, labels) = build().eval(), data()
    assert model(points, None, mode='tensor').shape == model(points).shape == (2, 64, 5)
    # What it knows of a category changes the logits.
    told = model(points, samples(labels))
    assert not torch.allclose(told, model(points), atol=1e-3)
    predicted = model(points, samples(labels), mode='predict')
    masks = torch.stack([sample.pred_pts_seg.pts_semantic_mask for sample in predicted])
    assert masks[0].max() <= 1 and masks[1].min() >= 2
    with pytest.raises(ValueError, match="got 'train'"):
        model(points, None, mode='train')


def test_it_learns():
    model, (points, labels) = build(), data()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    batch = dict(inputs=list(points), data_samples=samples(labels))
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    found = model.eval().test_step(batch)
    right = torch.stack([sample.pred_pts_seg.pts_semantic_mask for sample in found]) == labels
    assert right.float().mean() > 0.9


def test_any_number_of_points_and_no_categories():
    model = build(num_categories=0, category_parts=None).eval()
    points = clouds(batch=1, count=100)
    found = model.test_step(dict(inputs=[points[0]], data_samples=[PointDataSample()]))
    assert found[0].pred_pts_seg.pts_semantic_mask.shape == (100,)


def test_a_cloud_without_category_is_named():
    points, labels = data()
    unknown = samples(labels)
    del unknown[1].category
    with pytest.raises(ValueError, match=r'^1.txt has no category, but num_categories=2'):
        build()(points, unknown, mode='loss')
