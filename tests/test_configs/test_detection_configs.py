"""Detectors are built, run and learn, and their sizes fit each other and the data."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import yaml
from config_cases import DETECTION, FILES, ROOT, build_on_meta, config_of, name_parts, read, shorten, starting_point

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')

from mmdet.registry import DATA_SAMPLERS, DATASETS, HOOKS, METRICS, PARAM_SCHEDULERS, TRANSFORMS, VISUALIZERS
from mmengine.optim import build_optim_wrapper
from mmengine.visualization import Visualizer

from mmmap.engine.dense_checks.maps import check_maps

EVERY = pytest.mark.parametrize('cfg', DETECTION, ids=lambda path: path.stem, indirect=True)


def detection_files():
    return [path for path in FILES if path.parent.name == 'map_det']


def on_cpu(cfg):
    """Without mixed precision, which needs an accelerator."""
    wrapper = deepcopy(cfg.optim_wrapper)
    for name in ('dtype', 'loss_scale'):
        wrapper.pop(name, None)
    wrapper.type = 'OptimWrapper'
    return wrapper


def every_head(cfg):
    """The heads of a config that have classes."""
    roi = cfg.model.get('roi_head')
    heads = [cfg.model.bbox_head] if roi is None else [roi.bbox_head, roi.get('mask_head')]
    return [head for group in heads if group for head in (group if isinstance(group, list) else [group])]


@EVERY
def test_pyramid_and_heads_fit(cfg):
    model = build_on_meta(shorten(cfg))
    size, divisor = cfg.model.backbone.img_size, model.data_preprocessor.pad_size_divisor
    # Whole patches, and whole cells of the coarsest level.
    assert divisor % model.backbone.patch_size == 0 and divisor % 32 == 0
    check_maps(SimpleNamespace(model=model, cfg=cfg))
    height = divisor * -(-size // divisor)
    maps = model.extract_feat(torch.empty(2, 3, height, 2 * height, device='meta'))
    outs = []
    if 'rpn_head' in cfg.model:
        strides = [stride[0] for stride in model.rpn_head.prior_generator.strides]
        assert [(-(-height // s), -(-2 * height // s)) for s in strides] == [tuple(m.shape[-2:]) for m in maps]
        outs += model.rpn_head(maps)
        regions = torch.empty(4, maps[0].shape[1], 7, 7, device='meta')
        heads = model.roi_head.bbox_head
        outs += [head(regions) for head in (heads if isinstance(heads, torch.nn.ModuleList) else [heads])]
        masks = model.roi_head.mask_head if model.roi_head.with_mask else ()
        for head in masks if isinstance(masks, torch.nn.ModuleList | tuple) else [masks]:
            outs.append([head(torch.empty(4, maps[0].shape[1], 14, 14, device='meta'))])
    elif cfg.model.type == 'DINO':
        # Its attention has no rule for the meta device: test_recipes.py runs it.
        return
    else:
        outs += model.bbox_head(maps)
    sum(out.sum() for group in outs for out in group).backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()


@EVERY
def test_no_norm_over_the_batch(cfg):
    assert not any('batchnorm' in type(module).__name__.lower() for module in build_on_meta(cfg).modules())


@EVERY
def test_layer_decay_groups(cfg):
    model = build_on_meta(cfg)
    wrapper = build_optim_wrapper(model, on_cpu(cfg))
    rate = (cfg.optim_wrapper.get('paramwise_cfg') or {}).get('layer_decay_rate', 1.0)
    depth = len(model.backbone.encoder.blocks)
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
    given = cfg.optim_wrapper.optimizer.weight_decay
    exempt = ('norm.weight', '.ln.weight', 'bias', 'A_log', '.D', 'pos_embed.weight')
    assert {decay for name, decay in decays.items() if name.endswith(exempt)} == {0}
    last = {'DINO': 'bbox_head.cls_branches.0.weight', 'RetinaNet': 'bbox_head.retina_cls.weight'}
    last |= {'FCOS': 'bbox_head.conv_cls.weight', 'RTMDet': 'bbox_head.rtm_cls.0.weight'}
    assert decays['neck.levels.0.1.weight'] == decays[last.get(cfg.model.type, 'rpn_head.rpn_cls.weight')] == given


@EVERY
def test_schedule_covers_the_run(cfg):
    warm_up, main = cfg.param_scheduler
    assert PARAM_SCHEDULERS.get(warm_up.type) and PARAM_SCHEDULERS.get(main.type)
    assert main.end == cfg.train_cfg.max_epochs == name_parts(cfg.filename)['epochs']
    assert all(step < main.end for step in main.get('milestones', []))
    assert cfg.train_cfg.max_epochs % cfg.train_cfg.val_interval == 0


@EVERY
def test_data_hooks_and_classes(cfg):
    Visualizer._instance_dict.clear()
    visualizer = VISUALIZERS.build(cfg.visualizer)
    assert isinstance(visualizer, Visualizer)
    for hook in cfg.default_hooks.values():
        assert HOOKS.build(hook)
    assert cfg.default_hooks.visualization.type == 'DetVisualizationHook'
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        assert loader.get('collate_fn') is None
        assert DATASETS.get(loader.dataset.type) and DATA_SAMPLERS.get(loader.sampler.type)
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
        classes = (loader.dataset.get('metainfo') or DATASETS.get(loader.dataset.type).METAINFO)['classes']
        assert {head.num_classes for head in every_head(cfg)} == {len(classes)}
        # Masks are read where a head learns them, and nowhere else.
        (annotations,) = [step for step in loader.dataset.pipeline if step.type == 'LoadAnnotations']
        assert annotations.get('with_mask', False) == ('mask-rcnn' in cfg.filename)
    metrics = ['bbox', 'segm'] if 'mask-rcnn' in cfg.filename else 'bbox'
    assert cfg.val_evaluator.metric == cfg.test_evaluator.metric == metrics
    assert METRICS.get(cfg.val_evaluator.type)
    Visualizer._instance_dict.clear()


@EVERY
def test_numbers_in_the_name_are_those_of_the_config(cfg):
    parts = name_parts(cfg.filename)
    assert cfg.train_dataloader.batch_size == parts['batch']
    assert cfg.get('auto_scale_lr', {}).get('base_batch_size', parts['batch']) == parts['gpus'] * parts['batch']
    resize = next(step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize')
    assert parts['px'] == min(resize.scale)
    # Where the batches have one size, positions are stored for it.
    if cfg.model.data_preprocessor.pad_size_divisor > 32:
        assert cfg.model.data_preprocessor.pad_size_divisor == cfg.model.backbone.img_size == parts['px']


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
    assert set(DETECTION) == {path for path in detection_files() if not path.stem.startswith('map_')}
    assert len(DETECTION) >= 17


def test_metafile_lists_the_recipes_for_coco():
    models = yaml.safe_load((ROOT / 'configs/map_det/metafile.yml').read_text())['Models']
    assert {e['Config'] for e in models} == {str(p.relative_to(ROOT)) for p in DETECTION if '_coco' in p.stem}
    for entry in models:
        cfg, parts = read(ROOT / entry['Config']), name_parts(entry['Config'])
        metadata = entry['Metadata']
        assert metadata['Parameters'] == sum(p.numel() for p in build_on_meta(cfg).parameters())
        assert metadata['Epochs'] == cfg.train_cfg.max_epochs
        assert metadata['Batch Size'] == parts['gpus'] * parts['batch']
