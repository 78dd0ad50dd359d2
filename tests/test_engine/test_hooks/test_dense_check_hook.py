"""The hook that checks detectors and segmentors: when it runs, where it comes from, and that it changes nothing."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from dense_data import build, detection_config, findings, quick, segmentation_config, write_coco, write_masks
from mmengine.config import Config
from mmengine.runner import Runner

from mmmap.engine import dense_checks
from mmmap.engine.hooks import DenseCheckHook
from mmmap.engine.launch import build_runner
from mmmap.utils.errors import UserError


@pytest.fixture
def calls(monkeypatch):
    """The Runners that were checked, instead of the checks."""
    made = []
    monkeypatch.setattr(dense_checks, 'CHECKS', (made.append,))
    return made


def segmentation(root):
    for split in ('train', 'val'):
        write_masks(root, split=split)
    return segmentation_config(root)


def detection(root):
    """With pictures that have no object, which the check tries in a copy of the pipeline."""

    def change(content):
        content['annotations'] = [entry for entry in content['annotations'] if entry['image_id'] > 1]

    cfg = detection_config(write_coco(root, change=change))
    cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt = False
    crop = dict(type='RandomCrop', crop_size=(48, 48), allow_negative_crop=True)
    cfg.train_dataloader.dataset.pipeline[2:2] = [crop, dict(type='PhotoMetricDistortion')]
    return cfg


def train(cfg):
    runner = build(cfg)
    with quick():
        runner.train()
    return runner


def by_iterations(cfg):
    cfg.train_cfg = dict(by_epoch=False, max_iters=3, val_interval=3)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    return cfg


@pytest.mark.parametrize('make', [segmentation, detection])
@pytest.mark.parametrize('iterations', [False, True])
def test_bits_are_those_without_the_hook(tmp_path, make, iterations):
    cfg = make(tmp_path)
    if iterations:
        by_iterations(cfg)
    without = deepcopy(cfg)
    without.custom_hooks = []
    first = train(cfg)
    state = torch.random.get_rng_state()
    second = train(without)
    assert first.iter == second.iter > 0
    for (name, value), other in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(value, other), name
    assert torch.equal(state, torch.random.get_rng_state())


def test_each_loop_is_checked_once_before_it_runs(tmp_path, calls):
    cfg = segmentation(tmp_path)
    runner = train(cfg)
    assert calls == [runner]
    with quick():
        runner.val()
        assert calls == [runner]
        runner.test()
    assert calls == [runner] * 2
    # A loop that is run by itself is checked as well.
    runner = build(cfg)
    with quick():
        runner.val_loop.run()
    assert calls[2:] == [runner]


def test_the_last_hook_checks(tmp_path, calls):
    cfg = segmentation(tmp_path)
    cfg.default_hooks.dense_check = dict(type='DenseCheckHook')
    runner = build(cfg)
    with quick():
        runner.val()
    assert calls == [runner]


def test_other_models_are_not_checked(calls):
    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), hooks=[])
    for name in ('_train_loop', '_val_loop', '_test_loop'):
        setattr(runner, name, None)
    hook = DenseCheckHook()
    runner.hooks.append(hook)
    hook.before_run(runner)
    assert calls == []


def test_the_tools_add_it(tmp_path):
    cfg = detection_config(write_coco(tmp_path))
    cfg.launcher = 'none'
    for custom in ([], [dict(type='mmmap.DenseCheckHook', only_warn=True)]):
        cfg.custom_hooks = custom
        cfg.experiment_name = f'tools_{len(custom)}'
        with quick():
            runner = build_runner(Config(deepcopy(cfg._cfg_dict.to_dict())), [])
        hooks = [hook for hook in runner.hooks if isinstance(hook, DenseCheckHook)]
        assert [hook.only_warn for hook in hooks] == [bool(custom)]


def test_test_time_augmentation_is_looked_through(tmp_path):
    cfg = segmentation(tmp_path)
    cfg.model.decode_head.num_classes = 19
    cfg.model = dict(type='SegTTAModel', module=cfg.model)
    assert findings(cfg, 'test')[0].startswith('model.decode_head.num_classes=19')


def test_errors_of_others_stay(tmp_path):
    """A data loader of another model fails as it did; so does one that is built without a Runner."""
    DenseCheckHook()
    DenseCheckHook()
    loader = dict(batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(type='Unknown'))
    with pytest.raises(KeyError):
        Runner.build_dataloader(loader)
    cfg = segmentation(tmp_path)
    cfg.train_dataloader.dataset.type = 'Unknown'
    with pytest.raises(KeyError, match='Unknown'), quick():
        build(cfg).train()
    cfg = segmentation(tmp_path)
    cfg.train_dataloader.sampler.type = 'Unknown'
    with pytest.raises(KeyError, match='Unknown'), quick():
        build(cfg).train()


def test_a_fault_ends_the_run_before_the_first_step(tmp_path):
    cfg = segmentation(tmp_path)
    cfg.model.decode_head.num_classes = 19
    runner = build(cfg)
    with pytest.raises(UserError, match='num_classes=19'), quick():
        runner.train()
    assert runner.iter == 0
