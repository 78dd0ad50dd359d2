"""Configs train on generated images, with a smaller backbone and batch; all else is their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from config_cases import CLASSIFIERS, CONFIGS, PRETRAINING, ROOT, config_of, read, shorten, starting_point
from generated_data import write_cifar10, write_digits, write_imagenet, write_tiny_imagenet, write_unlabelled
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmpretrain.datasets import CIFAR10

from mmmap.engine.launch import build_runner

WIDTH = 48
# One of each kind is trained in every run of the tests.
ALWAYS = {
    'map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k',
    'map_hybrid-base-p16_8xb2048-amp-linear-coslr-90e_in1k',
    'mamba-r-stage1_hybrid-large-p16_8xb128-amp-coslr-300e_in1k-128px',
}


def cases(paths):
    return [pytest.param(p, id=p.stem, marks=[] if p.stem in ALWAYS else pytest.mark.slow) for p in paths]


def forget_runs():
    # Named by the time of the run or made by another test, they would be found again.
    for manager in (MMLogger, MessageHub, Visualizer):
        manager._instance_dict.clear()


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A current folder with data/ as the configs expect it."""
    write_imagenet(tmp_path / 'data/imagenet')
    write_digits(tmp_path / 'data/digits')
    write_cifar10(tmp_path / 'data/cifar10')
    write_tiny_imagenet(tmp_path / 'data/tiny-imagenet-200')
    for folder in ('camvid/images/train', 'carparts_coco/train/JPEGImages'):
        write_unlabelled(tmp_path / 'data' / folder)
    monkeypatch.setattr(CIFAR10, '_check_integrity', lambda self: True)
    monkeypatch.chdir(tmp_path)
    yield
    forget_runs()


def shrink(cfg: Config) -> Config:
    """Four narrow blocks, no workers, batches of 2."""
    cfg = shorten(cfg)
    arch = cfg.model.backbone.arch
    cfg.model.backbone.arch = arch | dict(embed_dim=WIDTH, num_heads=4, d_state=4)
    for loader in _loaders(cfg._cfg_dict):
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    return cfg


def _loaders(part):
    if isinstance(part, dict):
        if 'sampler' in part:
            yield part
        for value in part.values():
            yield from _loaders(value)
    elif isinstance(part, (list, tuple)):
        for value in part:
            yield from _loaders(value)


def write_starting_point(cfg: Config) -> dict:
    """The checkpoint that a config starts from, of the shrunk model of the config that writes it, untrained."""
    checkpoint = starting_point(cfg)
    if checkpoint is None:
        return {}
    before = shrink(read(config_of(checkpoint)))
    model = MODELS.build(before.model)
    if before.model.type == 'HybridClassifier':
        # A new head would start like this one.
        torch.nn.init.constant_(model.head.fc.bias, 0.5)
    Path(checkpoint).parent.mkdir(parents=True)
    torch.save({'state_dict': model.state_dict()}, checkpoint)
    return model.state_dict()


def run(cfg: Config) -> Runner:
    forget_runs()
    cfg.launcher, cfg.work_dir = 'none', 'work_dirs/this'
    runner = build_runner(cfg, [])
    if cfg.get('test_cfg') and cfg.test_cfg.get('type') == 'KNNLoop':
        runner.test()
    else:
        runner.train()
    return runner


def train_two_iterations(cfg: Config) -> tuple[Runner, dict]:
    """Train for an epoch of two iterations, evaluate if the config does, and return what it started from, too."""
    started_from = write_starting_point(cfg)
    cfg = shrink(cfg)
    for name in ('train_dataloader', 'val_dataloader'):
        if cfg.get(name):
            cfg[name].dataset.indices = 4
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    return run(cfg), started_from


@pytest.mark.parametrize('cfg', cases(CLASSIFIERS), indirect=True)
def test_classifier_trains_from_its_checkpoint(data, cfg):
    rate = 1e-2
    runner, started_from = train_two_iterations(cfg)
    assert runner.iter == 2
    scalars = runner.message_hub.log_scalars
    assert torch.isfinite(torch.as_tensor(scalars['train/loss'].current()))
    assert 0 <= scalars['val/accuracy/top1'].current() <= 100
    weights = runner.model.state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
    # The first two steps of the warm-up are small: what is loaded is still to be seen.
    loaded = [n for n in started_from if n.startswith('backbone.encoder') and n in weights]
    if starting_point(cfg):
        assert len(loaded) > 20
    for name in loaded:
        torch.testing.assert_close(weights[name], started_from[name], rtol=0, atol=rate)
    if cfg.get('load_from'):
        torch.testing.assert_close(weights['head.fc.bias'], started_from['head.fc.bias'], rtol=0, atol=rate)
    saved = torch.load('work_dirs/this/epoch_1.pth', weights_only=False)['state_dict']
    assert set(saved) == set(weights)


@pytest.mark.parametrize('cfg', cases(PRETRAINING), indirect=True)
def test_pretraining_trains(data, cfg):
    if (cfg.get('test_cfg') or {}).get('type') == 'KNNLoop':
        runner = run(shrink(cfg))
        assert any(0 <= log.current() <= 100 for log in runner.message_hub.log_scalars.values())
        return
    runner, _ = train_two_iterations(cfg)
    assert runner.iter == 2
    assert torch.isfinite(torch.as_tensor(runner.message_hub.log_scalars['train/loss'].current()))


def test_those_trained_always_exist():
    assert {path.stem for path in CONFIGS} >= ALWAYS


FSDP = """
_base_ = '{base}'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dim=48, layout='MMMT', num_heads=4, d_state=4), img_size=224, init_cfg=None
    ),
)
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(indices=4))
default_hooks = dict(logger=dict(interval=1))
train_cfg = dict(max_epochs=1)
val_dataloader = val_cfg = val_evaluator = None
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'map/benchmarks/map_hybrid-large-p16_8xb128-fsdp-amp-coslr-50e_in1k',
        'map/map_hybrid-large-p16_16xb128-fsdp-amp-coslr-1600e_in1k',
    ],
)
def test_fsdp_trains_in_two_processes(data, name):
    Path('fsdp.py').write_text(FSDP.format(base=ROOT / 'configs' / f'{name}.py'))
    command = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc-per-node=2', '--standalone']
    command += [str(ROOT / 'tools/train.py'), 'fsdp.py', '--launcher', 'pytorch', '--work-dir', 'work_dirs/this']
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Epoch(train) [1][2/2]' in done.stdout + done.stderr
    # The whole weights in one file, by the names that they have without FSDP.
    saved = torch.load('work_dirs/this/epoch_1.pth', weights_only=False)['state_dict']
    assert saved['backbone.pos_embed.weight'].shape == (1, 14, 14, 48)
    assert saved['backbone.encoder.blocks.3.attn.qkv.weight'].shape == (3 * 48, 48)
