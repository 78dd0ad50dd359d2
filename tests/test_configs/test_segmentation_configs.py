"""Segmentors are built, run and learn, and their sizes fit each other and the data."""

import re
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import yaml
from config_cases import FILES, ROOT, SEGMENTATION, build_on_meta, config_of, find, read, shorten, starting_point

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmseg')

from mmengine.optim import build_optim_wrapper
from mmengine.visualization import Visualizer
from mmseg.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, MODELS, PARAM_SCHEDULERS, TRANSFORMS, VISUALIZERS

from mmmap.engine.dense_checks.maps import check_maps
from mmmap.engine.evaluation_options import enable_tta

EVERY = pytest.mark.parametrize('cfg', SEGMENTATION, ids=lambda path: path.stem, indirect=True)


def heads(model):
    return [model.decode_head] + ([model.auxiliary_head] if model.with_auxiliary_head else [])


def iterations(path):
    return 1000 * int(re.search(r'-(\d+)k_', str(path))[1])


@EVERY
def test_pyramid_and_heads_fit(cfg):
    model = build_on_meta(shorten(cfg))
    size = cfg.model.data_preprocessor.size
    # Positions are stored for the crops, and tests pad to whole patches.
    assert set(size) == {cfg.model.backbone.img_size}
    assert cfg.model.data_preprocessor.test_cfg.size_divisor == cfg.model.backbone.patch_size
    features = model.extract_feat(torch.empty(2, 3, *size, device='meta'))
    if cfg.model.decode_head.type == 'Mask2FormerHead':
        # Its attention has no rule for the meta device: test_recipes.py runs it.
        check_maps(SimpleNamespace(model=model, cfg=cfg))
        return
    stride = 4 if model.with_neck else model.backbone.patch_size
    logits = [head(features) for head in heads(model)]
    assert logits[0].shape == (2, cfg.model.decode_head.num_classes, size[0] // stride, size[1] // stride)
    assert {len(out[0]) for out in logits} == {cfg.model.decode_head.num_classes}
    sum(out.sum() for out in logits).backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


@EVERY
def test_no_norm_over_the_batch(cfg):
    assert not any('batchnorm' in type(module).__name__.lower() for module in build_on_meta(cfg).modules())


@EVERY
def test_taps_are_even_parts_of_the_depth(cfg):
    backbone = build_on_meta(cfg).backbone
    taps = backbone.out_indices
    if 'ade20k' in cfg.filename and 'upernet' in cfg.filename:
        assert taps == tuple(backbone.num_blocks * part // 4 - 1 for part in (1, 2, 3, 4))
    assert taps[-1] == backbone.num_blocks - 1


@EVERY
def test_layer_decay_groups(cfg):
    model, settings = build_on_meta(cfg), deepcopy(cfg.optim_wrapper)
    # Mixed precision needs an accelerator.
    for name in ('dtype', 'loss_scale'):
        settings.pop(name, None)
    settings.type = 'OptimWrapper'
    wrapper = build_optim_wrapper(model, settings)
    rate = settings.get('paramwise_cfg', {}).get('layer_decay_rate', 1.0)
    depth = model.backbone.num_blocks
    scales, decays = {}, {}
    for group in wrapper.optimizer.param_groups:
        for name in group['param_names']:
            assert name not in scales
            scales[name], decays[name] = group['lr_scale'], group['weight_decay']
    assert set(scales) == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, scale in scales.items():
        if name.startswith('backbone.encoder.blocks.0.'):
            assert scale == pytest.approx(rate**depth)
        elif name.startswith(f'backbone.encoder.blocks.{depth - 1}.'):
            assert scale == pytest.approx(rate)
        elif name.startswith(('backbone.patch_embed', 'backbone.pos_embed')):
            assert scale == pytest.approx(rate ** (depth + 1))
        elif not name.startswith('backbone.'):
            assert scale == 1
    assert {decays[n] for n in decays if 'norm' in n or n.endswith(('bias', 'A_log', '.D', 'pos_embed.weight'))} == {0}
    last = 'cls_embed' if 'mask2former' in cfg.filename else 'conv_seg'
    assert decays[f'decode_head.{last}.weight'] == settings.optimizer.weight_decay
    # Probes train the head alone.
    trained = {name.split('.')[0] for name in scales}
    assert (trained == {'decode_head'}) == ('linear' in cfg.filename)


@EVERY
def test_schedule_covers_the_run_without_a_gap(cfg):
    ends = 0
    for scheduler in cfg.param_scheduler:
        assert PARAM_SCHEDULERS.get(scheduler.type) and scheduler.by_epoch is False
        assert scheduler.begin == ends
        ends = scheduler.end
    assert ends == cfg.train_cfg.max_iters == iterations(cfg.filename)
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.train_cfg.max_iters % cfg.default_hooks.checkpoint.interval == 0
    # mmengine counts in epochs unless each of these says otherwise.
    assert cfg.default_hooks.checkpoint.by_epoch is cfg.log_processor.by_epoch is False
    assert cfg.default_hooks.logger.log_metric_by_epoch is False


@EVERY
def test_data_hooks_and_classes(cfg):
    Visualizer._instance_dict.clear()
    assert isinstance(VISUALIZERS.build(cfg.visualizer), Visualizer)
    for hook in cfg.default_hooks.values():
        assert HOOKS.build(hook)
    assert cfg.default_hooks.visualization.type == 'SegVisualizationHook'
    pipelines = []
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        assert loader.get('collate_fn') is None
        dataset = DATASETS.get(loader.dataset.type)
        assert DATA_SAMPLERS.get(loader.sampler.type)
        pipelines.append(loader.dataset.pipeline)
        metainfo = loader.dataset.get('metainfo') or dataset.METAINFO
        assert len(metainfo['classes']) == len(metainfo['palette']) == cfg.model.decode_head.num_classes
    assert len(enable_tta(cfg)) == 1
    for pipeline in [*pipelines, cfg.test_dataloader.dataset.pipeline]:
        for transform in pipeline:
            TRANSFORMS.build(transform)
    views = cfg.test_dataloader.dataset.pipeline[1].transforms[0]
    assert len(views) == (6 if 'camvid' in cfg.filename else 12)
    assert METRICS.build(cfg.val_evaluator) and METRICS.build(cfg.test_evaluator)
    assert MODELS.get(cfg.tta_model.type)
    Visualizer._instance_dict.clear()


@EVERY
def test_one_label_is_ignored_everywhere(cfg):
    dataset = cfg.train_dataloader.dataset
    given = {head.ignore_index for head in heads(build_on_meta(cfg))}
    given |= {crop.get('ignore_index', 255) for crop in find(dataset.pipeline, 'RandomCrop')}
    given |= {part.get('ignore_index', 255) for part in (dataset, cfg.val_evaluator, cfg.test_evaluator)}
    given.add(cfg.model.data_preprocessor.seg_pad_val)
    assert len(given) == 1
    assert given.pop() >= cfg.model.decode_head.num_classes


@EVERY
def test_crops_and_windows_have_the_size_that_positions_are_stored_for(cfg):
    size = cfg.model.backbone.img_size
    assert [tuple(crop.crop_size) for crop in find(cfg.train_dataloader.dataset.pipeline, 'RandomCrop')] == [
        (size,) * 2
    ]
    assert int(re.search(r'-(\d+)px$', cfg.filename.removesuffix('.py'))[1]) == size
    test = cfg.model.test_cfg
    assert test.mode == 'slide' and tuple(test.crop_size) == (size, size)
    assert all(size / 2 < stride < size for stride in test.stride)


@EVERY
def test_numbers_in_the_name_are_those_of_the_config(cfg):
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', cfg.filename).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert ('-amp-' in cfg.filename) == (cfg.optim_wrapper.type == 'AmpOptimWrapper')


@EVERY
def test_starts_from_what_another_config_writes(cfg):
    checkpoint = starting_point(cfg)
    if checkpoint is None:
        assert 'scratch' in cfg.filename
        return
    before = read(config_of(checkpoint))
    assert checkpoint.endswith(f'epoch_{before.train_cfg.max_epochs}.pth')
    assert before.model.backbone.arch == cfg.model.backbone.arch
    assert before.model.backbone.patch_size == cfg.model.backbone.patch_size


def test_every_file_is_read():
    files = [path for path in FILES if path.parent.name == 'map_seg']
    assert set(SEGMENTATION) == {path for path in files if not path.stem.startswith('map_')}
    sizes = {
        (path.stem.split('_')[0], size) for path in SEGMENTATION for size in re.findall(r'hybrid-(\w+)-', path.stem)
    }
    assert sizes >= {(head, size) for head in ('upernet', 'linear') for size in ('tiny', 'small', 'base', 'large')}


def test_metafile_lists_the_recipes_for_ade20k():
    models = yaml.safe_load((ROOT / 'configs/map_seg/metafile.yml').read_text())['Models']
    assert {m['Config'] for m in models} == {str(p.relative_to(ROOT)) for p in SEGMENTATION if '_ade20k' in p.stem}
    for entry in models:
        cfg, metadata = read(ROOT / entry['Config']), entry['Metadata']
        assert metadata['Parameters'] == sum(p.numel() for p in build_on_meta(cfg).parameters())
        assert metadata['Iterations'] == cfg.train_cfg.max_iters
        assert metadata['Batch Size'] == cfg.auto_scale_lr.base_batch_size
