"""Pictures that the patches do not divide end a run; where padding makes them whole, nothing is read."""

import random
from unittest.mock import patch

import numpy as np
import pytest
import torch
from dense_data import build, detection_config, refusal, segmentation_config, write_coco, write_masks
from PIL import Image

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from mmmap.engine.dense_checks.sizes import PICTURES, check_sizes
from mmmap.utils.errors import UserError

OURS = dict(type='MAPHybrid', arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4), out_type='featmap')


def detector(root, divisor=1, scale=(64, 64), change=None, pictures=4):
    """A Faster R-CNN with patches of 16 pixels, and the size of all its pictures."""
    cfg = detection_config(write_coco(root, pictures=pictures, change=change), masks=False)
    cfg.model.backbone = dict(OURS)
    cfg.model.neck = dict(type='SimpleFeaturePyramid', in_channels=16, out_channels=8, with_max_pool=True)
    cfg.model.data_preprocessor.pad_size_divisor = divisor
    for name in ('train', 'val', 'test'):
        resize(cfg, name, scale)
    return cfg


def resize(cfg, name, scale, **options):
    pipeline = cfg[f'{name}_dataloader'].dataset.pipeline
    index = next(i for i, step in enumerate(pipeline) if step['type'].endswith('Resize'))
    pipeline[index] = dict(type='Resize', scale=scale, keep_ratio=False) | options


def segmentor(root, size=(64, 64), pictures=(64, 64), **preprocessor):
    cfg = segmentation_config(write_masks(root), img_suffix='.jpg')
    for split in ('train', 'val'):
        write_masks(root, split=split)
        for kind in ('images', 'masks'):
            for path in (root / kind / split).iterdir():
                # Width and height, as in PIL.
                Image.open(path).resize(pictures[::-1], Image.NEAREST).save(path)
    cfg.model.backbone = dict(OURS)
    cfg.model.decode_head.update(in_index=-1, in_channels=16)
    cfg.model.auxiliary_head = None
    cfg.model.data_preprocessor.update(size=size, **preprocessor)
    return cfg


def sizes_fault(cfg, run='train'):
    message = refusal(cfg, run)
    assert '\n' not in message
    return message


def readings(cfg, run='train'):
    """How many samples are read before the first iteration."""
    from mmengine.dataset import BaseDataset

    read = []

    def count(self, index):
        read.append(index)
        return prepare(self, index)

    prepare = BaseDataset.prepare_data
    with patch('mmmap.engine.dense_checks.CHECKS', (check_sizes,)), patch.object(BaseDataset, 'prepare_data', count):
        message = refusal(cfg, run)
    return len(read), message


def test_padding_to_whole_patches_passes_unread(tmp_path):
    assert readings(detector(tmp_path / 'det', divisor=32, scale=(61, 47))) == (0, '')
    cfg = segmentor(tmp_path / 'seg', pictures=(61, 70), test_cfg=dict(size_divisor=16))
    steps = cfg.train_dataloader.dataset.pipeline
    steps.insert(2, dict(type='RandomCrop', crop_size=(64, 64)))
    assert readings(cfg) == (0, '')


def test_fitting_pictures_without_padding_pass(tmp_path):
    assert readings(detector(tmp_path / 'det')) == (8, '')
    assert readings(segmentor(tmp_path / 'seg')) == (8, '')


@pytest.mark.parametrize(('name', 'run'), [('train', 'train'), ('val', 'train'), ('test', 'test')])
def test_a_detector_and_its_cure(tmp_path, name, run):
    cfg = detector(tmp_path)
    resize(cfg, name, (64, 50))
    message = sizes_fault(cfg, run)
    assert message.startswith(f'{name}_dataloader: pictures of 50x64 pixels')
    assert message.endswith('set model.data_preprocessor.pad_size_divisor=16')
    cfg.model.data_preprocessor.pad_size_divisor = 16
    assert sizes_fault(cfg, run) == ''


def test_a_divisor_that_the_patches_do_not_divide(tmp_path):
    # 24 pads 64 pixels to 72.
    assert sizes_fault(detector(tmp_path, divisor=24)).endswith('pad_size_divisor=32')


def test_one_size_of_many(tmp_path):
    cfg = detector(tmp_path)
    scales = [(16 * (i % 11 + 1), 64) for i in range(40)] + [(100, 64)]
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline[2] = dict(type='RandomChoiceResize', scales=scales, keep_ratio=False)
    assert 'pictures of 64x100 pixels' in sizes_fault(cfg)


def test_one_picture_of_another_size(tmp_path):
    def change(content):
        content['images'][37].update(width=64, height=63)

    cfg = detector(tmp_path, change=change, pictures=60)
    Image.new('RGB', (64, 63)).save(tmp_path / 'images/37.jpg')
    resize(cfg, 'train', (64, 64), keep_ratio=True)
    cfg.train_dataloader.dataset.filter_cfg = None
    assert 'train_dataloader: pictures of 63x64 pixels' in sizes_fault(cfg)
    assert readings(cfg)[0] <= PICTURES


@pytest.mark.parametrize(
    ('augment', 'fault'),
    [
        (dict(type='BatchFixedSizePad', size=(72, 64)), 'batch_augments[0].size=(72, 64): '),
        (dict(type='BatchFixedSizePad', size=(80, 64)), ''),
        (dict(type='BatchSyncRandomResize', random_size_range=(24, 48), size_divisor=24), '[0].size_divisor=24: '),
        (dict(type='BatchSyncRandomResize', random_size_range=(64, 96), size_divisor=32), ''),
        (dict(type='BatchResize', scale=(64, 64), pad_size_divisor=8), '[0].pad_size_divisor=8: '),
        (dict(type='BatchResize', scale=(64, 64), pad_size_divisor=32), ''),
    ],
)
def test_batch_augments_of_mmdet(tmp_path, augment, fault):
    cfg = detector(tmp_path, divisor=32)
    cfg.model.data_preprocessor.batch_augments = [augment]
    message = sizes_fault(cfg)
    assert fault in message and bool(message) == bool(fault)


def test_a_segmentor_in_validation_and_its_cure(tmp_path):
    cfg = segmentor(tmp_path, pictures=(60, 50))
    message = sizes_fault(cfg)
    assert message.startswith('val_dataloader: pictures of 60x50 pixels')
    assert message.endswith('set model.data_preprocessor.test_cfg=dict(size_divisor=16)')
    cfg.model.data_preprocessor.test_cfg = dict(size_divisor=16)
    # Not only checked: a validation of the run.
    metrics = build(cfg).val()
    assert 0 <= metrics['mIoU'] <= 100


def test_a_segmentor_in_training(tmp_path):
    cfg = segmentor(tmp_path / 'a', size=(60, 60), pictures=(60, 60), test_cfg=dict(size_divisor=16))
    assert sizes_fault(cfg).endswith('set model.data_preprocessor.size=(64, 64), and crops of that size')
    # Larger pictures stay as they are.
    cfg = segmentor(tmp_path / 'b', pictures=(64, 70), test_cfg=dict(size_divisor=16))
    message = sizes_fault(cfg)
    assert message.startswith('train_dataloader: pictures of 64x70') and 'dict(size=None, size_divisor=16)' in message
    cfg.model.data_preprocessor.update(size=None, size_divisor=16)
    assert sizes_fault(cfg) == ''


def test_mmseg_takes_size_or_its_divisor(tmp_path):
    cfg = segmentor(tmp_path, size_divisor=16)
    assert sizes_fault(cfg).startswith('model.data_preprocessor has size=(64, 64) and size_divisor=16, and mmseg takes')
    cfg.model.data_preprocessor.update(size=None, size_divisor=None)
    assert sizes_fault(cfg).startswith('model.data_preprocessor has neither size nor size_divisor')
    cfg.model.data_preprocessor.update(size=(64, 64), test_cfg=dict(size=(64, 64), size_divisor=16))
    assert sizes_fault(cfg).startswith('model.data_preprocessor.test_cfg has size=(64, 64) and size_divisor=16')


@pytest.mark.parametrize(
    ('window', 'padding', 'pictures', 'fault'),
    [
        ((64, 64), dict(size_divisor=16), (90, 70), ''),
        # Windows of 64 pixels of pictures that are not padded.
        ((64, 64), None, (90, 70), ''),
        ((64, 64), None, (90, 60), 'pictures of 64x60'),
        ((50, 64), dict(size_divisor=16), (90, 70), 'set model.test_cfg.crop_size=(64, 64), and'),
        # All pictures are smaller than the window.
        ((100, 100), dict(size_divisor=16), (90, 70), ''),
    ],
)
def test_windows_of_mmseg(tmp_path, window, padding, pictures, fault):
    cfg = segmentor(tmp_path, pictures=pictures, test_cfg=padding)
    cfg.model.test_cfg = dict(mode='slide', crop_size=window, stride=(32, 32))
    message = sizes_fault(cfg, 'val')
    assert fault in message and bool(message) == bool(fault)


def test_pictures_of_test_time_augmentation(tmp_path):
    cfg = segmentor(tmp_path)
    sizes = [[dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((64, 64), (88, 88))]]
    steps = [*sizes, [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]
    augmented = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=steps)]
    cfg.test_dataloader.dataset.pipeline = augmented
    cfg.model = dict(type='SegTTAModel', module=cfg.model)
    assert 'test_dataloader: pictures of 88x88 pixels' in sizes_fault(cfg, 'test')


def test_transforms_and_random_states_are_as_before(tmp_path):
    cfg = detector(tmp_path)
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.insert(2, dict(type='YOLOXHSVRandomAug'))
    cached = dict(type='CachedMosaic', img_scale=(64, 64), max_cached_images=10)
    cfg.train_dataloader.dataset.pipeline = [*pipeline[:2], cached, *pipeline[2:]]
    runner = build(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    state = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    mosaic = runner.train_dataloader.dataset.pipeline.transforms[2]
    check_sizes(runner)
    assert mosaic.results_cache == []
    assert torch.equal(state[0], torch.get_rng_state()) and state[1] == random.getstate()
    assert state[2] == np.random.get_state()[1].tolist()


def test_other_backbones_are_not_checked(tmp_path):
    cfg = detection_config(write_coco(tmp_path), masks=False)
    cfg.model.data_preprocessor.pad_size_divisor = 1
    resize(cfg, 'train', (61, 47))
    assert sizes_fault(cfg) == ''


def test_a_teacher_and_its_student(tmp_path):
    cfg = detector(tmp_path, scale=(64, 50))
    runner = build(cfg)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.model.student, branches = runner.model, runner.model.data_preprocessor
    runner.model.__dict__['student'] = runner.model._modules.pop('student')
    outer = torch.nn.Module()
    outer.data_preprocessor = branches
    runner.model.data_preprocessor = outer
    with pytest.raises(UserError, match='pictures of 50x64'):
        check_sizes(runner)
