"""Segmentors end before their first iteration if their classes, masks or data are wrong."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmcv._ext')
pytest.importorskip('mmseg')

from dense_data import NAMES, findings, refusal, segmentation_config, write_masks

PHASES = ('train', 'val', 'test')


@pytest.fixture
def root(tmp_path):
    return make(tmp_path)


def make(path, labels=(0, 1, 2), **options):
    for split in ('train', 'val'):
        write_masks(path, labels, split=split, **options)
    return path


def change_mask(root, change, split='train', name='2.png'):
    file = root / 'masks' / split / name
    change(np.array(Image.open(file))).save(file)
    return file


@pytest.mark.parametrize('run', PHASES)
def test_good_run_goes_on(root, run):
    assert findings(segmentation_config(root), run) == ('', '')


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head[0]'])
@pytest.mark.parametrize('run', PHASES)
def test_number_of_classes(root, head, run):
    cfg = segmentation_config(root)
    part = cfg.model.decode_head if head == 'decode_head' else cfg.model.auxiliary_head[0]
    part.num_classes = 19
    assert refusal(cfg, run) == (
        f'model.{head}.num_classes=19, but {run}_dataloader.dataset.metainfo.classes has 3 '
        f"('square', 'disc', 'star'): set model.{head}.num_classes=3"
    )


def test_one_class(tmp_path):
    cfg = segmentation_config(make(tmp_path, (0,)), names=['tumour'])
    assert 'model.decode_head.num_classes=1: one class is predicted for every pixel' in refusal(cfg)


def test_one_output(tmp_path):
    cfg = segmentation_config(make(tmp_path, (0, 1)), names=['other', 'tumour'])
    for head in (cfg.model.decode_head, *cfg.model.auxiliary_head):
        head.update(out_channels=1, threshold=0.5)
    assert 'model.decode_head.out_channels=1 with a softmax learns nothing' in refusal(cfg)
    for head in (cfg.model.decode_head, *cfg.model.auxiliary_head):
        head.loss_decode = dict(type='CrossEntropyLoss', use_sigmoid=True)
    assert findings(cfg) == ('', '')


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_order_of_the_classes(root, phase):
    cfg = segmentation_config(root)
    cfg[f'{phase}_dataloader'].dataset.metainfo = dict(classes=('square', 'star', 'disc'))
    message = refusal(cfg)
    if phase == 'test':
        assert message == ''
        return
    assert message.startswith('val_dataloader.dataset.metainfo.classes has other classes than train_dataloader.dataset')
    assert "in another order: label 1 is 'star' in the former and 'disc' in the latter" in message


def test_fewer_classes_in_validation(root):
    cfg = segmentation_config(root)
    cfg.val_dataloader.dataset.metainfo = dict(classes=('square', 'disc'))
    message = refusal(cfg)
    assert message.startswith("val_dataloader.dataset.metainfo.classes has 2 classes ('square', 'disc'), train_data")


def test_reduce_zero_label_of_one_set(root):
    cfg = segmentation_config(root)
    cfg.val_dataloader.dataset.reduce_zero_label = True
    assert refusal(cfg).startswith(
        'val_dataloader.dataset.reduce_zero_label=True, train_dataloader.dataset.reduce_zero'
    )
    cfg = segmentation_config(root)
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = True
    assert 'train_dataloader.dataset.pipeline[1].reduce_zero_label=True: set the former' in refusal(cfg)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize(
    ('labels', 'expected'),
    [
        ((1, 2, 3), 'set {key}.reduce_zero_label=True if the first class is label 1'),
        ((0, 1, 2, 7), 'or set {setting}.ignore_index=7 if it is to be ignored'),
        ((0, 9, 7, 4), 'it has 3 such labels'),
    ],
)
def test_labels_beyond_the_classes(root, split, labels, expected):
    write_masks(root, labels, split=split)
    message = refusal(segmentation_config(root), split)
    key = f'{split}_dataloader.dataset'
    setting = 'model.decode_head' if split == 'train' else 'val_evaluator'
    assert message.startswith(
        f'{key}: the mask {root}/masks/{split}/0.png has the label {min(set(labels) - {0, 1, 2})},'
    )
    assert expected.format(key=key, setting=setting) in message


def test_ignored_labels(tmp_path):
    """Each of the settings is needed; with all of them the run goes on."""
    cfg, seen = segmentation_config(make(tmp_path, (0, 1, 2, 11))), []
    for _ in range(4):
        message = refusal(cfg)
        if not message:
            break
        setting = re.search(r'or set (\S+)=11', message)[1]
        seen.append(setting)
        part = cfg
        for step in re.findall(r'\w+', setting)[:-1]:
            part = part[int(step) if step.isdigit() else step]
        part.ignore_index = 11
    assert seen == [
        'model.decode_head.ignore_index',
        'model.auxiliary_head[0].ignore_index',
        'val_evaluator.ignore_index',
    ]


def test_reduced_labels(tmp_path):
    assert findings(segmentation_config(make(tmp_path, (0, 1, 2, 3)), reduce_zero_label=True)) == ('', '')
    names = ('background', 'disc', 'star')
    message, warnings = findings(segmentation_config(make(tmp_path), names=names, reduce_zero_label=True))
    assert message == ''
    assert "ignores label 0 and makes label 1 the class 'background': is that meant?" in warnings


@pytest.mark.parametrize(('labels', 'zero'), [((0, 255), False), ((0, 1), True)])
def test_one_class_left(tmp_path, labels, zero):
    cfg = segmentation_config(make(tmp_path, labels), names=['other', 'tumour'], reduce_zero_label=zero)
    message, warnings = findings(cfg)
    assert message == ''
    assert "have the class 'other' alone; their files have the labels" in warnings and str(list(labels)) in warnings


def test_all_ignored(tmp_path):
    message = refusal(segmentation_config(make(tmp_path, (255,))))
    assert 'all pixels of the masks that were looked at have ignored labels ([255])' in message


def test_colours(root):
    file = change_mask(root, lambda mask: Image.fromarray(np.stack([mask] * 3, -1)), 'val')
    assert f'val_dataloader.dataset: the mask {file} is of shape (64, 64, 3), expected one number' in refusal(
        segmentation_config(root)
    )


def test_palette_is_no_colour(tmp_path):
    assert findings(segmentation_config(make(tmp_path, mode='P'))) == ('', '')


def test_wide_labels(root):
    """mmseg would take them modulo 256."""
    change_mask(root, lambda mask: Image.fromarray(mask.astype(np.uint16) * 256))
    assert 'has the label 256' in refusal(segmentation_config(root))


def test_other_size(root):
    file = change_mask(root, lambda mask: Image.fromarray(mask[:32]))
    assert f'the mask {file} has (32, 64) pixels (height, width), its picture (64, 64)' in refusal(
        segmentation_config(root)
    )


def test_no_picture(root):
    (root / 'masks/train/2.png').write_bytes(b'no picture')
    assert f'the mask {root}/masks/train/2.png' in refusal(segmentation_config(root))


@pytest.mark.parametrize('phase', PHASES)
def test_missing_data(root, phase):
    cfg = segmentation_config(root)
    split = 'train' if phase == 'train' else 'val'
    (root / f'masks/{split}/1.png').unlink()
    message = refusal(cfg, phase)
    assert message.startswith(f'{phase}_dataloader.dataset.data_prefix.seg_map_path: 1 of 4 files')
    cfg[f'{phase}_dataloader'].dataset.img_suffix = '.tif'
    message = refusal(cfg, phase)
    assert f'{phase}_dataloader.dataset is empty' in message and "ends in '.tif' (4 of .jpg)" in message
    cfg[f'{phase}_dataloader'].dataset.data_prefix.img_path = 'none'
    assert f'{phase}_dataloader.dataset.data_prefix.img_path: data not found: {root}/none' in refusal(cfg, phase)


def test_list_of_pictures(root):
    cfg = segmentation_config(root)
    cfg.train_dataloader.dataset.ann_file = 'train.txt'
    assert f'train_dataloader.dataset.ann_file: data not found: {root}/train.txt' in refusal(cfg)
    Path(root, 'train.txt').write_text('')
    assert f'train_dataloader.dataset is empty: {root}/train.txt lists no picture' in refusal(cfg)


def test_names_of_another_data_set(root):
    cfg = segmentation_config(root)
    for phase in PHASES:
        cfg[f'{phase}_dataloader'].dataset.type = 'ADE20KDataset'
    message = refusal(cfg)
    assert "ADE20KDataset has no 'square', 'disc', 'star'" in message and "type='BaseSegDataset'" in message


def test_wrappers(root):
    cfg = segmentation_config(root)
    parts = [cfg.train_dataloader.dataset.to_dict(), cfg.train_dataloader.dataset.to_dict()]
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    assert findings(cfg) == ('', '')
    parts[1]['metainfo'] = dict(classes=NAMES[::-1])
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=parts, ignore_keys=['classes', 'palette'])
    message = refusal(cfg)
    assert message.startswith('train_dataloader.dataset.datasets[1].metainfo.classes has other classes')
