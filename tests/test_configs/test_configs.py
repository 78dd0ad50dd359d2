"""Every config is read, its model runs, and what it names is there."""

from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, PARAM_SCHEDULERS, init_default_scope
from mmpretrain.registry import DATASETS, TRANSFORMS

from mmmap.engine.device import adapt_to_device
from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def cfg(request):
    cfg = Config.fromfile(request.param)
    init_default_scope(cfg.default_scope)
    return cfg


def build_on_meta(cfg):
    """The model without memory behind its weights, so that the largest is as cheap as the smallest."""
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def test_model_pretrains(cfg):
    model = build_on_meta(cfg)
    crop = next(t for t in cfg.train_dataloader.dataset.pipeline if t['type'].endswith('RandomResizedCrop'))['scale']
    assert model.backbone.img_size == (crop, crop)
    inputs = torch.empty(2, 3, crop, crop, device='meta')
    reconstruction = model.reconstruct(inputs)
    assert reconstruction.pred.shape == (2, (crop // model.backbone.patch_size) ** 2, model.head.proj.out_features)
    # The stored positions are those of this size: nothing is resized at each step.
    assert model.neck.pos_embed.weight.shape[1:3] == model.backbone.pos_embed.weight.shape[1:3] == reconstruction.grid
    reconstruction.loss().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_optimizer_and_schedule(cfg):
    cfg.launcher = 'none'
    adapt_to_device(cfg)
    model = build_on_meta(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {}
    names = {id(p): name for name, p in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for p in group['params']:
            decay[names[id(p)]] = group['weight_decay']
    assert len(decay) == len(names)
    exempt = {name for name, value in decay.items() if value == 0}
    expected = {
        name
        for name, p in model.named_parameters()
        if p.ndim == 1 or name.endswith(('bias', '.D', 'A_log', 'pos_embed.weight', 'mask_token'))
    }
    assert exempt == expected
    assert set(decay.values()) == {0.0, cfg.optim_wrapper.optimizer.weight_decay}
    # The schedule covers the run without a gap.
    ends = 0
    for scheduler in cfg.param_scheduler:
        assert scheduler.begin == ends
        assert PARAM_SCHEDULERS.get(scheduler.type)
        ends = scheduler.end
        assert scheduler.get('T_max', ends - scheduler.begin) == ends - scheduler.begin
    assert ends == cfg.train_cfg.max_epochs


def test_data_and_hooks(cfg):
    loaders = [cfg.train_dataloader]
    for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]:
        built = HOOKS.build(hook)
        loaders += [getattr(built, name) for name in ('bank_dataloader', 'query_dataloader') if hasattr(built, name)]
    for loader in loaders:
        assert DATASETS.get(loader.dataset.type)
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)


def test_batch_size_in_the_name_is_that_of_the_config(cfg):
    if 'xb' not in Path(cfg.filename).stem:
        return
    gpus, batch = Path(cfg.filename).stem.split('_')[2].split('-')[0].split('xb')
    assert cfg.train_dataloader.batch_size == int(batch)
    if cfg.get('auto_scale_lr'):
        assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(batch)


def test_front_door_is_the_base_recipe():
    front = Config.fromfile(ROOT / 'configs/map/vit-mamba_in1k.py')
    assert front.model.backbone.arch == 'base'
    assert front.train_cfg.max_epochs == 1600
    assert front.model.masking == dict(type='RandomMasking', ratio=0.5)


def test_metafile_lists_the_configs_and_their_parameters():
    models = yaml.safe_load((ROOT / 'configs/map/metafile.yml').read_text())['Models']
    listed = {entry['Config'] for entry in models}
    assert listed == {str(path.relative_to(ROOT)) for path in CONFIGS if path.stem.endswith('1600e_in1k')}
    for entry in models:
        model = build_on_meta(Config.fromfile(ROOT / entry['Config']))
        assert sum(p.numel() for p in model.parameters()) == entry['Metadata']['Parameters']
