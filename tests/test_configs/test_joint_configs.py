"""The configs of joint pretraining: their parts fit, and both learn in a short run that is resumed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from config_cases import JOINT, build_on_meta, find
from generated_data import ramps, write_cifar10
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmpretrain.datasets import CIFAR10
from raw_shapes import write_shrec

from mmmap.engine.launch import build_runner
from mmmap.registry import MODELS

EVERY = pytest.mark.parametrize('cfg', JOINT, ids=lambda path: path.stem, indirect=True)


def forget_runs() -> None:
    for manager in (MMLogger, MessageHub, Visualizer):
        manager._instance_dict.clear()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A current folder with data/ as the configs expect it."""
    write_cifar10(tmp_path / 'data/cifar10', ramps)
    write_shrec(tmp_path / 'data/shrec16.npz', 1100)
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)
    monkeypatch.chdir(tmp_path)
    yield
    forget_runs()


def shrink(cfg):
    """Four narrow blocks, few points, no workers, batches of 4, two epochs."""
    for part in (cfg.model.image, cfg.model.points):
        part.backbone.arch = part.backbone.arch | dict(embed_dim=32, layout='MMMT', d_state=4)
    cfg.train_dataloader.update(batch_size=4, num_workers=0, persistent_workers=False)
    for sample in find(cfg.train_dataloader.dataset, 'PointsSample'):
        sample.num_points = 256
    for hook in cfg.custom_hooks:
        hook.interval = 1
    cfg.auto_scale_lr.enable = False
    cfg.param_scheduler = []
    cfg.train_cfg.max_epochs = 2
    cfg.default_hooks.checkpoint.interval = 1
    cfg.launcher, cfg.work_dir = 'none', 'work_dirs/this'
    return cfg


def train(cfg) -> Runner:
    forget_runs()
    runner = build_runner(cfg, [])
    runner.train()
    return runner


@EVERY
def test_the_parts_share_what_they_can_and_all_of_them_learns(cfg):
    model = build_on_meta(cfg)
    assert model.image.backbone.pos_embed is model.points.backbone.pos_embed
    built = MODELS.build(shrink(cfg).model)
    for inputs in (torch.randn(2, 3, 32, 32), torch.rand(2, 256, 3)):
        built.parse_losses(built.loss(inputs))[0].backward()
    assert [name for name, p in built.named_parameters() if p.grad is None] == []
    # Under DistributedDataParallel a step leaves one part alone.
    assert cfg.find_unused_parameters


@EVERY
def test_both_learn_in_turn_and_a_run_goes_on(data, cfg):
    cfg = shrink(cfg)
    runner = train(cfg)
    # 60 shapes (12 of them five times) in batches of 4, and as many batches of images.
    assert runner.iter == 2 * 2 * 15
    scalars = runner.message_hub.log_scalars
    images, points = scalars['train/image_scale_1'].data[0], scalars['train/points_scale_1'].data[0]
    assert len(images) == len(points) == 30
    # Predicting a mean of all pixels comes to 47 / 48.
    assert np.mean(images[-5:]) < 0.9 < images[0]
    assert np.mean(points[-5:]) < points[0] / 5
    pictures = sorted(path.name for path in Path('work_dirs/this').rglob('vis_image/*.png'))
    assert pictures == [f'{part}_reconstruction_{epoch}.png' for part in ('image', 'points') for epoch in (1, 2)]

    saved = torch.load('work_dirs/this/epoch_2.pth', weights_only=False)
    steps = {int(state['step']) for state in saved['optimizer']['state'].values()}
    assert steps == {30, 60}  # Of the parts, and of what they share.
    name = 'backbone.encoder.blocks.0.norm.weight'
    assert torch.equal(saved['state_dict'][f'image.{name}'], saved['state_dict'][f'points.{name}'])
    cfg.train_cfg.max_epochs = 3
    cfg.load_from, cfg.resume = 'work_dirs/this/epoch_2.pth', True
    runner = train(cfg)
    assert runner.iter == 3 * 2 * 15
    again = runner.message_hub.log_scalars['train/image_scale_1'].data[0]
    assert len(again) == 45 and np.mean(again[-5:]) < 0.9
    saved = torch.load('work_dirs/this/epoch_3.pth', weights_only=False)
    assert {int(state['step']) for state in saved['optimizer']['state'].values()} == {45, 90}
