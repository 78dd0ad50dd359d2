"""Detectors and segmentors of the recipes train and predict on small pictures, with a smaller backbone."""

import pytest
import torch
from config_cases import DETECTION, SEGMENTATION, shorten
from dense_data import NAMES, write_coco, write_masks
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmmap.engine.launch import build_runner

# One of each kind of head, of the smallest backbone; the first of each task in every run of the tests.
DETECTORS = [path for path in DETECTION if '1x-12e' in path.stem and '-tiny-' in path.stem]
SEGMENTORS = [path for path in SEGMENTATION if '160k' in path.stem and '-tiny-' in path.stem]
SIZE = 128
ALWAYS = ('retinanet', 'semantic-fpn')


def cases(paths):
    marks = {path: () if path.stem.split('_')[0] in ALWAYS else pytest.mark.slow for path in paths}
    return [pytest.param(path, id=path.stem, marks=mark) for path, mark in marks.items()]


@pytest.fixture(autouse=True)
def forget_runs():
    yield
    # Named by the time of the run, they would be found again.
    for manager in (MMLogger, MessageHub, Visualizer):
        manager._instance_dict.clear()


def shrink(cfg, root):
    """Four narrow blocks, float32, two iterations of two pictures."""
    cfg = shorten(cfg)
    cfg.model.backbone.update(init_cfg=None, drop_path_rate=0.0)
    cfg.model.backbone.arch = cfg.model.backbone.arch | dict(embed_dim=48, num_heads=4, d_state=4)
    cfg.model.neck.in_channels = 48
    for name in ('dtype', 'loss_scale'):
        cfg.optim_wrapper.pop(name)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.optimizer.lr = 1e-3
    cfg.param_scheduler = []
    cfg.auto_scale_lr.enable = False
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].update(num_workers=0, persistent_workers=False)
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(data_root=f'{root}/', metainfo=dict(classes=NAMES))
        for step in dataset.pipeline:
            if step.type in ('Resize', 'RandomResize'):
                step.update(scale=(SIZE, SIZE), keep_ratio=True)
            if step.type == 'RandomCrop':
                step.crop_size = (SIZE, SIZE)
    cfg.launcher, cfg.work_dir = 'none', str(root / 'work')
    return cfg


def train_and_test(cfg):
    """The metrics of a test after a training of two iterations."""
    runner = build_runner(cfg, [])
    before = [p.detach().clone() for p in runner.model.parameters()]
    runner.train()
    assert runner.iter == 2
    # What is trained has changed, and is finite.
    after = list(runner.model.parameters())
    assert all(p.isfinite().all() for p in after)
    assert sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) > 0.7 * len(after)
    assert runner.message_hub.get_scalar('train/loss').current() > 0
    return runner.test()


@pytest.mark.parametrize('cfg', cases(DETECTORS), indirect=True)
def test_detectors(cfg, tmp_path):
    write_coco(tmp_path)
    cfg = shrink(cfg, tmp_path)
    roi = cfg.model.get('roi_head')
    for head in [cfg.model.bbox_head] if roi is None else [roi.bbox_head, roi.get('mask_head')]:
        if head:
            head.num_classes = len(NAMES)
    if roi is not None:
        # Few regions, and boxes of any score.
        cfg.model.train_cfg.rpn_proposal.max_per_img = cfg.model.test_cfg.rpn.max_per_img = 40
        cfg.model.train_cfg.rcnn.sampler.num = 32
        cfg.model.test_cfg.rcnn.score_thr = 0.0
    if 'num_queries' in cfg.model:
        # No more than the maps of small pictures have cells.
        cfg.model.num_queries = 100
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.update(ann_file='all.json', data_prefix=dict(img='images/'))
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = f'{tmp_path}/all.json'
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    assert 0 <= train_and_test(cfg)['coco/bbox_mAP'] <= 1


@pytest.mark.parametrize('cfg', cases(SEGMENTORS), indirect=True)
def test_segmentors(cfg, tmp_path):
    write_masks(tmp_path)
    cfg = shrink(cfg, tmp_path)
    cfg.model.data_preprocessor.size = (SIZE, SIZE)
    cfg.model.backbone.img_size = SIZE
    cfg.model.test_cfg.update(crop_size=(SIZE, SIZE), stride=(85, 85))
    for head in (cfg.model.decode_head, cfg.model.get('auxiliary_head')):
        if head:
            head.num_classes = len(NAMES)
    if cfg.model.decode_head.type == 'Mask2FormerHead':
        cfg.model.decode_head.loss_cls.class_weight = [1.0] * len(NAMES) + [0.1]
        cfg.model.decode_head.train_cfg.num_points = 500
    for name in ('train', 'val', 'test'):
        dataset = cfg[f'{name}_dataloader'].dataset
        dataset.update(type='BaseSegDataset', data_prefix=dict(img_path='images/train', seg_map_path='masks/train'))
    cfg.train_cfg.update(max_iters=2, val_interval=2)
    assert 0 <= train_and_test(cfg)['mIoU'] <= 100


def test_each_kind_of_head_is_tried():
    heads = {path.stem.split('_')[0] for path in DETECTORS + SEGMENTORS}
    assert heads >= {'retinanet', 'fcos', 'rtmdet', 'dino', 'faster-rcnn', 'mask-rcnn'}
    assert heads >= {'upernet', 'semantic-fpn', 'segformer', 'mask2former'}
