"""Models and images without a Runner."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmap.apis import (
    build_model,
    config_points,
    example_batches,
    example_inputs,
    load_images,
    load_model,
    stored_model,
)
from mmmap.engine.errors import UserError


@pytest.fixture
def cfg(map_cfg):
    preprocessor = dict(type='SelfSupDataPreprocessor', mean=[10.0] * 3, std=[2.0] * 3, to_rgb=True)
    return Config(dict(model=map_cfg(), data_preprocessor=preprocessor, default_scope='mmpretrain'))


def test_the_preprocessor_of_the_config_unless_the_model_has_one(cfg):
    assert build_model(cfg).data_preprocessor.mean.flatten().tolist() == [10.0] * 3
    cfg.model.data_preprocessor = dict(type='SelfSupDataPreprocessor', mean=[7.0] * 3, std=[2.0] * 3, to_rgb=True)
    assert build_model(cfg).data_preprocessor.mean.flatten().tolist() == [7.0] * 3
    assert '_scope_' not in cfg.model
    with pytest.raises(UserError, match='has no model'):
        build_model(Config(dict(train_cfg={})))


def test_weights_must_fit(cfg, tmp_path):
    model = build_model(cfg).train()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'whole.pth')
    state = build_model(cfg).state_dict()
    loaded = load_model(build_model(cfg), str(tmp_path / 'whole.pth'))
    assert not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), model.state_dict().values(), strict=True)
    )
    del state['head.proj.bias']
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(RuntimeError, match=r'head\.proj\.bias'):
        load_model(build_model(cfg), str(tmp_path / 'part.pth'))
    with pytest.raises(UserError, match='stores no model config'):
        stored_model(str(tmp_path / 'part.pth'))


def test_images_are_resized_cropped_and_normalised(cfg, tmp_path):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = (30, 50, 70)
    Image.fromarray(pixels).save(tmp_path / 'wide.png')
    inputs = load_images(build_model(cfg), [str(tmp_path / 'wide.png')], (32, 32))
    expected = (torch.tensor([30.0, 50.0, 70.0]) - 10) / 2
    torch.testing.assert_close(inputs, expected.view(1, 3, 1, 1).expand(1, 3, 32, 32))
    (tmp_path / 'broken.png').write_bytes(b'nothing')
    with pytest.raises(Exception, match=r'broken\.png'):
        load_images(build_model(cfg), [str(tmp_path / 'broken.png')], (32, 32))


@pytest.mark.parametrize('to_rgb', [True, False])
def test_images_are_seen_as_rgb_whatever_the_data_set_gives(cfg, tmp_path, to_rgb):
    Image.fromarray(np.full((32, 32, 3), (30, 50, 70), np.uint8)).save(tmp_path / 'a.png')
    cfg.model.data_preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor', to_rgb=to_rgb)
    inputs = load_images(build_model(cfg), [str(tmp_path / 'a.png')], (32, 32))
    assert inputs[0, :, 5, 7].tolist() == [30, 50, 70]


def test_example_inputs_of_each_view(cfg):
    model = build_model(cfg)
    (inputs,) = example_inputs(cfg, model, 2)
    assert inputs.shape == (2, 3, 64, 64)
    cfg.train_dataloader = dict(dataset=dict(pipeline=[dict(type='MultiView', num_views=[2, 1])]))
    assert [view.shape for view in example_inputs(cfg, model, 1, (32, 48))] == [(1, 3, 32, 48)] * 3
    del model.backbone.img_size
    with pytest.raises(UserError, match='MAPHybrid tells no image size: give one with --shape'):
        example_inputs(cfg, model, 1)


def test_points_are_those_that_the_pipeline_draws_last(cfg):
    with pytest.raises(UserError, match='no number of points: give one with --points'):
        cfg.model.backbone = dict(type='PointMAPHybrid', arch='tiny', num_groups=8, group_size=4)
        cfg.model.neck.grid, cfg.model.data_preprocessor = None, dict(type='PointDataPreprocessor')
        cfg.model.head = dict(type='PointReconstructionHead', in_dim=32, group_size=4)
        cfg.model.neck.in_dim = 192
        example_batches(cfg, build_model(cfg), 1)
    pipeline = [dict(type='PointsSample', num_points=1200), dict(type='PointsSample', num_points=1024)]
    cfg.test_dataloader = dict(dataset=dict(pipeline=pipeline[:1]))
    assert config_points(cfg) == 1200
    cfg.train_dataloader = dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline)))
    assert config_points(cfg) == 1024
    assert example_batches(cfg, build_model(cfg), 2)[''].inputs.shape == (2, 1024, 3)
    assert example_batches(cfg, build_model(cfg), 2, points=50)[''].inputs.shape == (2, 50, 3)
