"""Every config is read, and what it names is there and fits: optimizer, schedule, data, hooks, numbers in its name."""

import re

import pytest
import yaml
from config_cases import (
    CONFIGS,
    OF_MMPRETRAIN,
    ROOT,
    STRATEGY,
    backbone_of,
    build_on_meta,
    config_of,
    find,
    is_classifier,
    name_parts,
    read,
    starting_point,
)
from mmengine.optim import build_optim_wrapper
from mmengine.registry import FUNCTIONS, HOOKS, METRICS, PARAM_SCHEDULERS, RUNNERS, STRATEGIES
from mmpretrain.registry import DATA_SAMPLERS, DATASETS, TRANSFORMS

from mmmap.engine.cpu_config import adapt_to_cpu

EVERY = pytest.mark.parametrize('cfg', OF_MMPRETRAIN, ids=lambda path: path.stem, indirect=True)
OF_IMAGES = pytest.mark.parametrize('cfg', CONFIGS, ids=lambda path: path.stem, indirect=True)
EXEMPT = re.compile(r'(bias|\.D|A_log|pos_embed(\.weight)?|register_tokens|mask_token|cls_token|start_token)$')


@EVERY
def test_optimizer(cfg):
    cfg.launcher = 'none'
    adapt_to_cpu(cfg)
    if cfg.get('strategy'):
        # DeepSpeed's wrapper takes an optimizer only; the groups are those of any.
        cfg.optim_wrapper.type = 'OptimWrapper'
    model = build_on_meta(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    decay = {}
    for group in wrapper.optimizer.param_groups:
        assert group['lr'] > 0
        for p in group['params']:
            if id(p) in names:
                assert names[id(p)] not in decay
                decay[names[id(p)]] = group['weight_decay']
    assert set(decay) == set(names.values())
    given = cfg.optim_wrapper.optimizer.get('weight_decay', 0.0)
    assert set(decay.values()) <= {0.0, given}
    if given:
        exempt = {name for name, value in decay.items() if value == 0}
        assert exempt == {n for n, p in model.named_parameters() if n in decay and (p.ndim <= 1 or EXEMPT.search(n))}


@EVERY
def test_schedule_covers_the_run_without_a_gap(cfg):
    rate = cfg.optim_wrapper.get('paramwise_cfg', {}).get('layer_decay_rate', 1.0)
    ends = 0
    for scheduler in cfg.param_scheduler:
        assert scheduler.begin == ends
        assert PARAM_SCHEDULERS.get(scheduler.type)
        ends = scheduler.end
        assert scheduler.get('T_max', ends - scheduler.begin) == ends - scheduler.begin
        # An absolute minimum would lift the layers whose rate has decayed below it.
        assert rate == 1 or scheduler.get('eta_min') is None
    assert ends == cfg.train_cfg.max_epochs


@EVERY
def test_data_and_hooks(cfg):
    loaders = [cfg[f'{name}_dataloader'] for name in ('train', 'val', 'test') if cfg.get(f'{name}_dataloader')]
    loaders += [cfg.test_cfg.bank_dataloader] if (cfg.get('test_cfg') or {}).get('bank_dataloader') else []
    for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]:
        built = HOOKS.build(hook)
        loaders += [getattr(built, name) for name in ('bank_dataloader', 'query_dataloader') if hasattr(built, name)]
    for loader in loaders:
        for sampler in (loader.sampler, loader.get('batch_sampler')):
            assert sampler is None or DATA_SAMPLERS.get(sampler.type)
        # Those within another, too.
        datasets = [part for part in find(loader.dataset, '') if 'pipeline' in part]
        assert datasets and DATASETS.get(loader.dataset.type)
        for dataset in datasets:
            assert DATASETS.get(dataset.type)
            for transform in dataset.pipeline:
                TRANSFORMS.build(transform)
    for name in ('val', 'test'):
        # mmengine wants all three of them or none.
        present = [cfg.get(f'{name}_{part}') is not None for part in ('dataloader', 'cfg', 'evaluator')]
        assert len(set(present)) == 1
        for metric in find(cfg.get(f'{name}_evaluator'), ''):
            METRICS.build(metric)


@EVERY
def test_numbers_in_the_name_are_those_of_the_config(cfg):
    parts = name_parts(cfg.filename)
    if 'batch' in parts:
        assert cfg.train_dataloader.batch_size == parts['batch']
        if (cfg.get('auto_scale_lr') or {}).get('enable'):
            assert cfg.auto_scale_lr.base_batch_size == parts['gpus'] * parts['batch']
    if 'epochs' in parts:
        assert cfg.train_cfg.max_epochs == parts['epochs']
    if 'px' in parts:
        assert cfg.model.backbone.img_size == parts['px']


@OF_IMAGES
def test_images_have_the_size_that_the_backbone_stores_positions_for(cfg):
    for name in ('train', 'val', 'test'):
        pipeline = (cfg.get(f'{name}_dataloader') or {}).get('dataset', {}).get('pipeline', [])
        sizes = {crop.get('scale', crop.get('crop_size')) for crop in find(pipeline, 'Crop')}
        assert sizes <= {cfg.model.backbone.img_size}


@EVERY
def test_checkpoint_to_start_from_is_what_another_config_writes(cfg):
    checkpoint = starting_point(cfg)
    if checkpoint is None:
        return
    before = read(config_of(checkpoint))
    assert checkpoint.endswith(f'epoch_{before.train_cfg.max_epochs}.pth')
    for key in ('arch', 'patch_size', 'num_groups', 'group_size'):
        assert backbone_of(before).get(key) == backbone_of(cfg).get(key)
    if cfg.get('load_from'):
        # The backbone and the classifier; nothing loads the pretrained backbone over them.
        assert is_classifier(before) and before.model.get('neck') == cfg.model.get('neck')
        assert cfg.model.backbone.get('init_cfg') is None


@pytest.mark.parametrize('cfg', STRATEGY, ids=lambda path: path.stem, indirect=True)
def test_strategies(cfg):
    assert RUNNERS.get(cfg.runner_type)
    assert STRATEGIES.get(cfg.strategy.type)
    policy = cfg.strategy.get('model_wrapper', {}).get('auto_wrap_policy')
    if cfg.strategy.type == 'FSDPStrategy':
        wrap = FUNCTIONS.get(policy)
        model = build_on_meta(cfg)
        wrapped = [name for name, module in model.named_modules() if wrap(module, False, 0)]
        blocks = [f'backbone.encoder.blocks.{i}' for i in range(model.backbone.num_blocks)]
        assert wrapped[: len(blocks)] == blocks
        # The decoder's blocks alone are left, and what is wrapped holds most of the parameters.
        assert all(name.startswith('neck.') for name in wrapped[len(blocks) :])
        assert not wrap(model, False, 0) and wrap(model, True, 0)


def test_every_metafile_lists_existing_configs():
    listed = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert set(listed) == {str(path.relative_to(ROOT)) for path in (ROOT / 'configs').rglob('metafile.yml')}
    for metafile in listed:
        for entry in yaml.safe_load((ROOT / metafile).read_text())['Models']:
            path = ROOT / entry['Config']
            assert path.stem == entry['Name']
            if path not in OF_MMPRETRAIN:
                # Segmentation and detection have tests of their own.
                continue
            cfg = read(path)
            metadata, parts = entry['Metadata'], name_parts(path)
            assert sum(p.numel() for p in build_on_meta(cfg).parameters()) == metadata['Parameters']
            assert metadata['Epochs'] == cfg.train_cfg.max_epochs
            assert metadata['Batch Size'] == parts['gpus'] * parts['batch']
