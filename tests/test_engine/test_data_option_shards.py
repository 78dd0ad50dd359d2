"""Tar shards behind ``--data DIR``."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmmap.engine.config_datasets import find_datasets
from mmmap.engine.data_option import use_folder, use_test_folder
from mmmap.engine.data_option_shards import shards_by_split
from mmmap.registry import DATASETS
from mmmap.utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs'
PRETRAINING = 'map/mini/map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'
KNN = 'map/benchmarks/map_hybrid-digits_knn_digits-28px.py'
FINETUNING = 'map/mini/finetune_hybrid-mini-p4_1xb256-coslr-50e_cifar10-32px.py'
TRAIN, TEST = ('train', 'val', 'bank', 'query'), ('test', 'bank')


def _pack(path, count, classes=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, 'w') as tar:
        for seed in range(count):
            file = io.BytesIO()
            Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), 'uint8')).save(file, 'JPEG')
            members = {'jpg': file.getvalue()} | ({'cls': b'%d' % (seed % classes)} if classes else {})
            for suffix, content in members.items():
                info = tarfile.TarInfo(f'{path.stem}/{seed}.{suffix}')
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def root(tmp_path):
    """Two shards to train on and one to evaluate on."""
    for number in range(2):
        _pack(tmp_path / f'train/{number}.tar', 6)
    _pack(tmp_path / 'val/0.tar', 4)
    return tmp_path


def _use(name, root, roles=TRAIN):
    cfg = Config.fromfile(CONFIGS / name)
    init_default_scope('mmpretrain')
    return cfg, use_folder(cfg, str(root), roles)


def _built(cfg):
    return {role: DATASETS.build(data_set) for data_set, role in find_datasets(cfg._cfg_dict)}


@pytest.mark.parametrize(
    ('name', 'roles', 'numbers'),
    [
        (PRETRAINING, TRAIN, {'train': 12}),
        (FINETUNING, TRAIN, {'train': 12, 'val': 4, 'test': 4}),
        (KNN, TEST, {'bank': 12, 'test': 4}),
        ('map/small/finetune_hybrid-4m-p8_1xb512-amp-coslr-30e_tiny-imagenet-64px.py', TRAIN, {'train': 12, 'val': 4}),
        ('map/benchmarks/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py', TRAIN, {'train': 12, 'val': 4}),
    ],
)
def test_every_kind_of_config_takes_shards(root, name, roles, numbers):
    cfg, messages = _use(name, root, roles)
    size, built = cfg.model.backbone.img_size, _built(cfg)
    for role, number in numbers.items():
        assert type(built[role]).__name__ == 'ImageShards' and len(built[role]) == number
        assert built[role][0]['inputs'].shape == (3, size, size)
    assert messages[0].startswith(f'--data {root}: tar shards of train: train') and '3 classes' in messages[0]
    if name == FINETUNING:
        assert cfg.model.head.num_classes == 3
        assert built['val'].get_gt_labels().tolist() == [0, 1, 2, 0]


def test_names_of_folders_are_no_patterns(root):
    moved = root.parent / 'my [old] {a,b} *'
    root.rename(moved)
    cfg, _ = _use(FINETUNING, moved)
    assert len(_built(cfg)['train']) == 12


def test_labels_of_other_classes_are_named_without_a_key_of_the_config(root):
    _pack(root / 'val/0.tar', 4, classes=4)
    with pytest.raises(UserError, match=r'^\S*/val/0\.tar: 0/3\.jpg: the label 3 is none of the 3 classes'):
        _use(FINETUNING, root)


def test_splits_are_folders_or_beginnings_of_names(root):
    assert shards_by_split(root) == {'train': 'train/*.tar', 'val': 'val/*.tar'}
    _pack(root / 'x' / 'train-0.tar', 1)
    _pack(root / 'x' / 'test_0.tar', 1)
    assert shards_by_split(root / 'x') == {'train': 'train*.tar', 'test': 'test*.tar'}
    assert shards_by_split(root / 'train') == {'train': '*.tar'}


def test_colours_are_those_that_the_config_had(root):
    """CIFAR gives RGB, files are loaded as BGR: the pipeline turns them, as it does for a folder."""
    cfg, _ = _use(PRETRAINING, root)
    kinds = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    assert kinds[0] == 'LoadImageChecked' and 'NumpyToPIL' in kinds
    cfg, _ = _use('map/small/finetune_hybrid-4m-p8_1xb512-amp-coslr-30e_tiny-imagenet-64px.py', root)
    kinds = [step['type'] for step in cfg.train_dataloader.dataset.pipeline]
    assert kinds[0] == 'LoadImageChecked' and 'NumpyToPIL' not in kinds


def test_shards_without_labels_are_for_pretraining(tmp_path):
    _pack(tmp_path / 'a.tar', 5, classes=0)
    cfg, messages = _use(PRETRAINING, tmp_path)
    assert len(_built(cfg)['train']) == 5 and 'no classes (' in messages[0]
    with pytest.raises(UserError, match='needs the images of two or more classes'):
        _use(FINETUNING, tmp_path)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    _pack(tmp_path / 'train-0.tar', 6)
    with pytest.raises(UserError, match=r'no shards of val, only of train; expected .*\{train,val\}/\*.tar'):
        _use(FINETUNING, tmp_path)
    with open(tmp_path / 'train-0.tar', 'r+b') as file:
        file.truncate(700)
    with pytest.raises(UserError, match=r'train-0.tar is cut off or damaged'):
        _use(PRETRAINING, tmp_path)


def test_classes_of_a_checkpoint_are_compared_by_name(root):
    for path in root.rglob('*.tar'):
        (path.parent / 'classes.txt').write_text('cat\ndog\ncow\n')
    torch.save(dict(state_dict={}, meta=dict(dataset_meta=dict(classes=['cow', 'cat', 'dog']))), root / 'c.pth')
    cfg = Config.fromfile(CONFIGS / FINETUNING)
    init_default_scope('mmpretrain')
    use_test_folder(cfg, str(root), str(root / 'c.pth'))
    assert _built(cfg)['test'].get_gt_labels().tolist() == [1, 2, 0, 1]


def test_archives_beside_images_are_not_meant(root):
    for name in ('cat', 'dog'):
        (root / name).mkdir()
        for seed in range(20):
            Image.fromarray(np.full((40, 40, 3), seed, 'uint8')).save(root / name / f'{seed}.png')
    cfg, _ = _use(PRETRAINING, root)
    assert cfg.train_dataloader.dataset.type == 'ImageFolder'
