"""Random batches for models."""

import pytest

from mmmap.apis import build_model, example_batches, example_images, points_per_cloud
from mmmap.utils.errors import UserError


def test_example_images_of_each_view(cfg):
    model = build_model(cfg)
    (inputs,) = example_images(cfg, model, 2)
    assert inputs.shape == (2, 3, 64, 64)
    cfg.train_dataloader = dict(dataset=dict(pipeline=[dict(type='MultiView', num_views=[2, 1])]))
    assert [view.shape for view in example_images(cfg, model, 1, (32, 48))] == [(1, 3, 32, 48)] * 3
    del model.backbone.img_size
    with pytest.raises(UserError, match='MAPHybrid has no image size: give one with --shape'):
        example_images(cfg, model, 1)


def test_points_are_those_that_the_pipeline_draws_last(cfg):
    with pytest.raises(UserError, match='no number of points: give one with --points'):
        cfg.model.backbone = dict(type='PointMAPHybrid', arch='tiny', num_groups=8, group_size=4)
        cfg.model.neck.grid, cfg.model.data_preprocessor = None, dict(type='PointDataPreprocessor')
        cfg.model.head = dict(type='PointReconstructionHead', in_dim=32, group_size=4)
        cfg.model.neck.in_dim = 192
        example_batches(cfg, build_model(cfg), 1)
    pipeline = [dict(type='PointsSample', num_points=1200), dict(type='PointsSample', num_points=1024)]
    cfg.test_dataloader = dict(dataset=dict(pipeline=pipeline[:1]))
    assert points_per_cloud(cfg) == 1200
    cfg.train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline)))
    assert points_per_cloud(cfg) == 1024
    assert example_batches(cfg, build_model(cfg), 2)[''].inputs.shape == (2, 1024, 3)
    assert example_batches(cfg, build_model(cfg), 2, points=50)[''].inputs.shape == (2, 50, 3)
