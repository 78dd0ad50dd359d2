import argparse
import copy
import functools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from picture_folder import CLASSES, write_picture, write_pictures

from mmmap.command_line import add_data_option
from mmmap.engine.config_datasets import find_datasets
from mmmap.engine.data_option import use_folder, use_test_folder
from mmmap.engine.error_report import explain
from mmmap.registry import DATASETS
from mmmap.utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs'
PRETRAINING = 'map/mini/map_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py'
WITH_KNN = 'map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'
KNN = 'map/benchmarks/map_hybrid-digits_knn_digits-28px.py'
FINETUNING = 'map/mini/finetune_hybrid-mini-p4_1xb256-coslr-50e_cifar10-32px.py'
PROBE = 'map/mini/linear_hybrid-mini-p4_1xb256-coslr-20e_cifar10-32px.py'
TRAIN, TEST = ('train', 'val', 'bank', 'query'), ('test', 'bank')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp('pictures')
    write_pictures(root)
    return root


_from_file = functools.cache(Config.fromfile)


def _read(name, **options):
    cfg = copy.deepcopy(_from_file(CONFIGS / name))
    cfg.merge_from_dict(options)
    init_default_scope('mmpretrain')
    return cfg


def _build(cfg, role):
    """The first data set of a role that a Runner builds."""
    keys = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'test_cfg', 'custom_hooks')
    found = find_datasets({key: cfg._cfg_dict.get(key) for key in keys})
    return DATASETS.build(next(data_set for data_set, its_role in found if its_role == role))


def _write(root, *paths):
    for path in paths:
        write_picture(root / path)


def _names(data):
    """Path below its root and class of each image."""
    infos = map(data.get_data_info, range(len(data)))
    classes = data.metainfo['classes']
    return {str(Path(info['img_path']).relative_to(data.img_prefix)): classes[info['gt_label']] for info in infos}


@pytest.mark.parametrize(
    ('name', 'numbers'),
    [
        (PRETRAINING, {'train': 38}),
        (KNN, {'train': 38, 'bank': 33, 'test': 3, 'query': 3}),
        (FINETUNING, {'train': 35, 'val': 3, 'test': 3}),
        ('map/mini/mocov3_hybrid-mini-p4_1xb256-coslr-100e_cifar10-32px.py', {'train': 38}),
        # Decoded at the start, without the broken ones.
        ('map/small/finetune_hybrid-4m-p8_1xb512-amp-coslr-30e_tiny-imagenet-64px.py', {'train': 33, 'val': 3}),
        ('map/benchmarks/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py', {'train': 35, 'val': 3}),
        ('map/benchmarks/map_hybrid-base-p16_knn_in1k.py', {'bank': 33, 'test': 3}),
        # Its base is mmpretrain's, which reads with mmcv's transform.
        ('baselines/mocov3_hybrid-base-p16_16xb256-amp-coslr-300e_in1k.py', {'train': 38}),
    ],
)
def test_every_kind_of_config_takes_pictures_of_all_sizes_and_formats(pictures, name, numbers):
    cfg = _read(name)
    use_folder(cfg, str(pictures), TRAIN)
    size = cfg.model.backbone.img_size
    for role, number in numbers.items():
        data = _build(cfg, role)
        # In the order of a run, each draws another image for a broken one.
        images = [data[i]['inputs'] for i in range(len(data))]
        views = [view for image in images for view in (image if isinstance(image, list) else [image])]
        assert len(images) == number and {tuple(view.shape) for view in views} == {(3, size, size)}


def test_number_of_classes_and_small_sets(pictures, monkeypatch):
    cfg = _read('map/benchmarks/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py')
    messages = use_folder(cfg, str(pictures), TRAIN)
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 3
    assert cfg.val_evaluator.topk == cfg.test_evaluator.topk == (1,)
    assert cfg.train_dataloader.batch_size == 35
    assert any('3 classes: cats, dogs, owls; a tenth' in message for message in messages)
    assert any('val_evaluator.topk (1, 5) -> (1,)' in message for message in messages)
    monkeypatch.setenv('WORLD_SIZE', '4')
    cfg = _read(PROBE)
    messages = use_folder(cfg, str(pictures), TRAIN)
    assert cfg.train_dataloader.batch_size == 9 and 'drop_last' not in cfg.train_dataloader
    assert any('batch_size 256 -> 9' in message for message in messages)
    # What fits stays as it is.
    cfg = _read(PROBE, **{'train_dataloader.batch_size': 4})
    messages = use_folder(cfg, str(pictures), TRAIN)
    assert (cfg.train_dataloader.batch_size, cfg.train_dataloader.drop_last, len(messages)) == (4, True, 1)
    cfg = _read(WITH_KNN)
    use_folder(cfg, str(pictures), TRAIN)
    assert cfg.custom_hooks[1].k == 17
    cfg = _read(KNN)
    messages = use_folder(cfg, str(pictures), TEST)
    assert cfg.test_cfg.k == 17 and not any('train_dataloader' in message for message in messages)


def test_a_part_that_is_asked_for_is_what_is_taken(pictures):
    cfg = _read(PROBE, **{'train_dataloader.dataset.indices': 5, 'val_dataloader.dataset.indices': [0, 1]})
    messages = use_folder(cfg, str(pictures), TRAIN)
    assert (len(_build(cfg, 'train')), len(_build(cfg, 'val'))) == (5, 2)
    assert cfg.train_dataloader.batch_size == 5 and any('batch_size 256 -> 5' in message for message in messages)


def test_images_beside_the_classes_are_named_where_they_are_not_used(tmp_path):
    _write(tmp_path, *(f'{split}/{name}/{i}.png' for split in ('train', 'val') for name in 'ab' for i in range(2)))
    _write(tmp_path, 'train/x.png', 'val/y.png', 'val/z.png')
    flat = ['1 images in train beside the folders of classes', '2 images in val beside the folders of classes']
    for name, unused in ((FINETUNING, flat), (PRETRAINING, flat[1:])):
        message, *_ = use_folder(_read(name), str(tmp_path), TRAIN)
        assert message.endswith(f'; not used: {", ".join(unused)}')


def test_home_is_expanded_where_no_shell_does_it(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    parser = argparse.ArgumentParser()
    add_data_option(parser)
    assert parser.parse_args(['--data=~/my images']).data == f'{tmp_path}/my images'


def test_data_sets_within_others_are_replaced(tmp_path):
    _write(tmp_path, '1.png', '2.png')
    cfg = _read(PRETRAINING)
    inner = cfg.train_dataloader.dataset
    for wrapper, times in (
        (dict(type='RepeatDataset', times=3, dataset=inner), 3),
        (dict(type='ConcatDataset', datasets=[inner, dict(type='CIFAR100', data_root='x', pipeline=[])]), 2),
        (dict(type='CIFAR10', data_root='x'), 1),
    ):
        cfg = _read(PRETRAINING, train_dataloader=dict(dataset=dict(_delete_=True, **wrapper)))
        use_folder(cfg, str(tmp_path), TRAIN)
        assert len(DATASETS.build(cfg.train_dataloader.dataset)) == 2 * times


def test_evaluations_take_the_tenth_that_no_training_takes(pictures):
    cfg = _read(FINETUNING)
    use_folder(cfg, str(pictures), TRAIN)
    kept, held_out = (_names(_build(cfg, role)) for role in ('train', 'val'))
    cfg = _read(FINETUNING)
    use_folder(cfg, str(pictures), TEST)
    assert _names(_build(cfg, 'test')) == held_out and not set(kept) & set(held_out)
    cfg = _read(KNN)
    use_folder(cfg, str(pictures), TEST)
    assert _names(_build(cfg, 'test')) == held_out and set(_names(_build(cfg, 'bank'))) < set(kept)


def test_a_part_of_the_classes_of_imagenet(tmp_path):
    _write(tmp_path, *(f'{part}/n0{i}/{j}.JPEG' for part in ('train', 'val') for i in range(3) for j in range(2)))
    cfg = _read('map/benchmarks/map_hybrid-base-p16_8xb128-amp-coslr-100e_in1k.py')
    use_folder(cfg, str(tmp_path), TRAIN)
    assert cfg.model.head.num_classes == 3
    for role in ('train', 'val', 'test'):
        assert _names(_build(cfg, role)) == {f'n0{i}/{j}.JPEG': f'n0{i}' for i in range(3) for j in range(2)}


def test_labels_are_the_names_of_the_training(tmp_path):
    _write(tmp_path, *(f'train/{name}/{i}.png' for name in CLASSES for i in range(3)))
    _write(tmp_path, 'val/owls/1.png', 'test/cats/1.png', 'test/dogs/2.png')
    cfg = _read(FINETUNING)
    use_folder(cfg, str(tmp_path), TRAIN)
    assert _names(_build(cfg, 'val')) == {'owls/1.png': 'owls'} and _build(cfg, 'val')[0]['data_samples'].gt_label == 2
    assert _names(_build(cfg, 'test')) == {'cats/1.png': 'cats', 'dogs/2.png': 'dogs'}
    assert _build(cfg, 'val').metainfo['classes'] == _build(cfg, 'train').metainfo['classes'] == CLASSES
    # As many, with other names, which matters only to what uses labels.
    _write(tmp_path, 'val/cats/1.png', 'val/dog/1.png')
    use_folder(_read(PRETRAINING), str(tmp_path), TRAIN)
    with pytest.raises(UserError, match=r'val has folders of 1 classes .*: dog \(did you mean dogs\?\)'):
        use_folder(_read(FINETUNING), str(tmp_path), TRAIN)


def test_a_test_folder_has_the_classes_of_the_checkpoint(tmp_path):
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict={}), tmp_path / 'model.pth')
    _write(tmp_path, 'data/test/dogs/1.png', 'data/test/owls/2.png')
    cfg = _read(FINETUNING)
    use_test_folder(cfg, str(tmp_path / 'data'), str(tmp_path / 'model.pth'))
    data = _build(cfg, 'test')
    assert cfg.model.head.num_classes == 3 and _names(data) == {'dogs/1.png': 'dogs', 'owls/2.png': 'owls'}
    assert [data.get_data_info(i)['gt_label'] for i in range(2)] == [1, 2]
    _write(tmp_path, 'data/test/eagles/1.png')
    with pytest.raises(UserError, match='the training has not: eagles'):
        use_test_folder(_read(FINETUNING), str(tmp_path / 'data'), str(tmp_path / 'model.pth'))


def test_without_classes_there_is_pretraining_alone(tmp_path):
    _write(tmp_path, '1.png', '2.jpg', 'more/3.webp')
    cfg = _read(WITH_KNN)
    messages = use_folder(cfg, str(tmp_path), TRAIN)
    assert [hook.type for hook in cfg.custom_hooks] == ['ReconstructionHook'] and len(_build(cfg, 'train')) == 3
    assert any('KNNHook is left out' in message for message in messages)
    for name, roles in ((FINETUNING, TRAIN), (FINETUNING, TEST), (KNN, TEST)):
        with pytest.raises(
            UserError, match=r'needs the images of two or more classes, in .*\{train,val\}/CLASS/\*.* found: more'
        ):
            use_folder(_read(name), str(tmp_path), roles)


@pytest.mark.parametrize(
    ('name', 'paths', 'error'),
    [
        (FINETUNING, ['a/1.png', 'b/1.png'], 'no class has two images, so that none can be held out'),
        (FINETUNING, ['notes.txt'], 'no images in it'),
        (FINETUNING, ['val/a/1.png', 'test/a/1.png', 'val/b/1.png'], 'no folder train beside'),
        (PRETRAINING, ['test/1.png'], 'no folder train beside test'),
        (PRETRAINING, ['pets/train/a/1.png', 'pets/val/a/1.png'], r'train, val lie in .*/pets: give --data .*/pets$'),
        ('pointmap/map_pointhybrid-mini_1xb32-coslr-200e_shrec16.py', ['1.png'], 'reads PointCloudArrays, not images'),
        ('joint/jointmap_hybrid-mini_1xb32-coslr-100e_cifar10-shrec16.py', ['1.png'], 'PointCloudArrays, not images'),
    ],
)
def test_folders_and_configs_that_do_not_go_together(tmp_path, name, paths, error):
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    with pytest.raises(UserError, match=error):
        use_folder(_read(name), str(tmp_path), TRAIN)
    with pytest.raises(UserError, match=r'folder not found: .*/absent'):
        use_folder(_read(PRETRAINING), str(tmp_path / 'absent'), TRAIN)


def test_missing_data_of_an_image_config_points_at_the_option(tmp_path):
    cfg = _read('map/vit-mamba_in1k.py', **{'train_dataloader.dataset.data_root': str(tmp_path)})
    assert explain(FileNotFoundError(), cfg).endswith(f'images of your own are read with --data {tmp_path}')
    cfg.train_dataloader.dataset.data_root = str(tmp_path / 'absent')
    assert explain(FileNotFoundError(), cfg).endswith('images of your own are read with --data DIR')
    cfg = _read('pointmap/map_pointhybrid-mini_1xb32-coslr-200e_shrec16.py')
    assert '--data' not in explain(FileNotFoundError(), cfg)
