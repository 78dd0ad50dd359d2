import logging
from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from picture_folder import CLASSES, write_picture, write_pictures
from PIL import Image

from mmmap.datasets import ImageFolder
from mmmap.datasets.folder_listing import hold_out
from mmmap.registry import DATASETS


@pytest.fixture
def pictures(tmp_path):
    write_pictures(tmp_path)
    return tmp_path


@pytest.fixture
def messages(monkeypatch):
    """What is logged, with its level."""
    found = []
    monkeypatch.setattr(
        'mmmap.datasets.image_folder.print_log', lambda text, logger, level=logging.INFO: found.append((level, text))
    )
    return found


def _labels(data):
    return {str(Path(info['img_path']).name): info['gt_label'] for info in map(data.get_data_info, range(len(data)))}


def test_all_formats_are_found_with_the_labels_of_their_folders(pictures, messages):
    data = ImageFolder(str(pictures))
    assert data.metainfo['classes'] == CLASSES and len(data) == 38
    for i in range(len(data)):
        info = data.get_data_info(i)
        first = Path(info['img_path']).relative_to(pictures).parts[0]
        assert info['gt_label'] == CLASSES.index(first) and Path(info['img_path']).is_file()
    ((level, text),) = messages
    assert level == logging.WARNING and '38 images of 3 classes: cats (13), dogs (13), owls (12)' in text
    for name in ('cats/._0.jpg', '.ipynb_checkpoints', '__MACOSX', 'dogs/gone.jpg', 'owls/loop', 'cats/notes.txt'):
        assert name in text
    # Once a folder, not once a data set.
    ImageFolder(str(pictures), with_label=False)
    assert messages[1] == (logging.INFO, f'ImageFolder {pictures}: 38 images')


def test_without_labels_all_images_are_taken(pictures, messages):
    write_picture(pictures / 'beside.png')
    data = ImageFolder(data_root=str(pictures.parent), data_prefix=pictures.name, with_label=False)
    assert len(data) == 39 and all('gt_label' not in data.get_data_info(i) for i in range(39))
    assert 'classes' not in data.metainfo
    labelled = ImageFolder(str(pictures))
    assert len(labelled) == 38 and 'images beside the folders of classes: 1 (beside.png)' in messages[-1][1]


def test_broken_images_are_left_out_and_named(pictures, messages):
    data = ImageFolder(str(pictures), leave_out_broken=True, test_mode=True, pipeline=[dict(type='LoadImageChecked')])
    assert len(data) == 36 and {'cut.jpg', 'empty.png'}.isdisjoint(_labels(data))
    for i in range(36):
        sample = data[i]
        # Grey and transparent ones too.
        assert sample['img'].ndim == 3 and sample['img'].shape[2] == 3
    assert 'left out 2 of 38 images' in messages[-1][1]
    assert 'cut.jpg: ' in messages[-1][1] and 'empty.png: ' in messages[-1][1]


@pytest.mark.parametrize('kind', ['LoadImageChecked', 'LoadRandomResizedCrop'])
def test_images_are_tried_with_the_limit_of_the_pipeline(tmp_path, kind):
    for name, width in (('small', 8), ('large', 64)):
        Image.new('RGB', (width, 8)).save(tmp_path / f'{name}.png')
    step = dict(type=kind, max_pixels=100) | (dict(scale=4) if kind == 'LoadRandomResizedCrop' else {})
    data = ImageFolder(str(tmp_path), with_label=False, leave_out_broken=True, test_mode=True, pipeline=[step])
    assert [Path(info['img_path']).name for info in data] == ['small.png']


def test_classes_are_a_subset_in_their_order(pictures, messages):
    data = ImageFolder(str(pictures), classes=['owls', 'cats'])
    labels = _labels(data)
    assert data.metainfo['classes'] == ('owls', 'cats')
    assert labels['0.jpg'] == 1 and labels['35.ppm'] == 0 and len(data) == 25
    assert 'folders of other classes: 1 (dogs)' in messages[-1][1]
    assert len(ImageFolder(str(pictures), metainfo=dict(classes=['owls', 'cats']))) == 25
    with pytest.raises(ValueError, match=r'no images of birds, cts; there are cats, dogs, owls'):
        ImageFolder(str(pictures), classes=['cats', 'birds', 'cts'])
    with pytest.raises(ValueError, match='occurs twice'):
        ImageFolder(str(pictures), classes=['cats', 'cats'])


def test_a_test_folder_that_lacks_a_class_keeps_the_labels(tmp_path, messages):
    for name in ('cats', 'owls'):
        write_picture(tmp_path / name / f'{name}.png')
    data = ImageFolder(str(tmp_path), classes=list(CLASSES), test_mode=True)
    assert _labels(data) == {'cats.png': 0, 'owls.png': 2}
    assert 'classes without images: 1 (dogs)' in messages[-1][1]


def test_parts_are_disjoint_and_whole(pictures):
    parts = [_labels(ImageFolder(str(pictures), part=part)) for part in ('all', 'train', 'val')]
    assert {**parts[1], **parts[2]} == parts[0] and not set(parts[1]) & set(parts[2])
    assert sorted(parts[2].values()) == [0, 1, 2]
    files = sorted(str(path.relative_to(pictures)) for path in (pictures / 'owls').rglob('*.*') if path.is_file())
    assert [Path(path).name for path in hold_out(files)[1]] == [name for name, label in parts[2].items() if label == 2]


def test_a_list_of_images_takes_no_others(tmp_path):
    write_picture(tmp_path / 'a b' / '1 2.png')
    (tmp_path / 'list.txt').write_text('a b/1 2.png 1\n\n')
    data = ImageFolder(str(tmp_path), ann_file='list.txt', classes=['x', 'y'], pipeline=[dict(type='LoadImageChecked')])
    assert len(data) == 1 and data[0]['gt_label'] == 1 and data[0]['img'].shape == (40, 30, 3)
    for line in ('a b/1.png -1', 'a b/1.png 2', 'a b/1.png'):
        (tmp_path / 'list.txt').write_text(f'a b/1 2.png 0\n{line}\n')
        with pytest.raises(ValueError, match=r'list\.txt, line 2: .*: expected a path and a label from 0 to 1'):
            ImageFolder(str(tmp_path), ann_file='list.txt', classes=['x', 'y'])
    (tmp_path / 'list.txt').write_text('a b/1 2.png\n')
    assert len(ImageFolder(str(tmp_path), ann_file='list.txt', with_label=False)) == 1


@pytest.mark.parametrize(
    ('paths', 'options', 'error'),
    [
        ([], {}, 'no folders of classes with images in it, and 0 images'),
        (['1.png', '2.png'], {}, 'no folders of classes with images in it, and 2 images .*with_label=False'),
        (['a/1.txt'], {'with_label': False}, 'no images;.*files without the suffix of an image: 1 .a/1.txt'),
        (['a/1.png'], {'part': 'val'}, 'no images of part=val'),
        (['a/1.png'], {'part': 'test'}, "part='test'"),
        (['a/1.png'], {'leave_out_broken': True}, 'no image can be read'),
    ],
)
def test_folders_without_what_is_asked_for(tmp_path, paths, options, error):
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    with pytest.raises(ValueError, match=error):
        ImageFolder(str(tmp_path), **options)


def test_other_roots_are_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'folder not found: .*/absent'):
        ImageFolder(str(tmp_path / 'absent'))
    with pytest.raises(ValueError, match='not a local folder'):
        ImageFolder('http://host/images')
    with pytest.raises(TypeError, match='extension'):
        ImageFolder(str(tmp_path), extensions=['.png'])


@pytest.mark.parametrize('serialize', [True, False])
def test_what_wraps_a_data_set_finds_what_it_needs(pictures, serialize):
    init_default_scope('mmpretrain')
    settings = dict(type='ImageFolder', data_root=str(pictures), serialize_data=serialize)
    data = DATASETS.build(dict(settings, lazy_init=True))
    assert not data._fully_initialized and len(data) == 38
    assert np.bincount(data.get_gt_labels()).tolist() == [13, 13, 12] and data.get_cat_ids(0) == [0]
    assert len(DATASETS.build(dict(settings, indices=5))) == 5
    for wrapper, length in (
        (dict(type='RepeatDataset', times=2, dataset=settings), 76),
        (dict(type='ConcatDataset', datasets=[settings, settings]), 76),
        (dict(type='ClassBalancedDataset', oversample_thr=0.1, dataset=settings), 38),
    ):
        data = DATASETS.build(wrapper)
        assert len(data) == length and list(data.metainfo['classes']) == list(CLASSES)


def test_readers_of_folders_read_what_pillow_wrote(pictures):
    data = ImageFolder(str(pictures), leave_out_broken=True, pipeline=[dict(type='LoadImageChecked', on_error='raise')])
    for sample in map(data.__getitem__, range(len(data))):
        with Image.open(sample['img_path']) as image:
            assert sample['img'].shape[:2] == (image.height, image.width)
        if image.mode != 'L':
            assert sample['img'][..., ::-1].mean(axis=(0, 1)).argmax() == sample['gt_label']
