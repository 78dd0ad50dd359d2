import os

import pytest
from picture_folder import CLASSES, write_pictures

from mmmap.datasets.folder_layout import FolderLayout
from mmmap.datasets.folder_listing import hold_out, list_images, printable


def _touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def test_all_that_lies_in_a_folder_is_listed_or_told(tmp_path):
    write_pictures(tmp_path)
    listing = list_images(tmp_path)
    assert list(listing.images) == list(CLASSES)
    assert [len(files) for files in listing.images.values()] == [13, 13, 12]
    assert listing.images['owls'] == sorted(listing.images['owls'])
    assert 'owls/2024/june/35.ppm' in listing.images['owls']
    assert {kind: sorted(names) for kind, names in listing.passed_over.items()} == {
        'hidden': ['.ipynb_checkpoints', '__MACOSX', 'cats/._0.jpg'],
        'files without the suffix of an image': ['cats/notes.txt'],
        'dangling links': ['dogs/gone.jpg'],
        'links to a folder that they lie in': ['owls/loop'],
    }
    assert '\n  hidden: 3 (.ipynb_checkpoints, __MACOSX, cats/._0.jpg)' in listing.describe()


def test_suffixes_links_and_odd_entries(tmp_path):
    _touch(tmp_path / 'root', 'a/1.JPG', 'a/2.WebP', 'a/3.jpg.txt', 'a/jpg', 'a/line\nbreak.png', 'a/Thumbs.db')
    _touch(tmp_path / 'elsewhere', '4.png', '5.png')
    (tmp_path / 'root/b').symlink_to('../elsewhere')
    (tmp_path / 'root/a/6.gif').symlink_to('../../elsewhere/4.png')
    (tmp_path / 'root/a/circle.png').symlink_to('circle.png')
    (tmp_path / 'root/empty').mkdir()
    os.mkfifo(tmp_path / 'root/a/pipe.jpg')
    # Neither link leads to a folder that it lies in itself, together they have no end.
    (tmp_path / 'elsewhere/back').symlink_to('../root')
    listing = list_images(tmp_path / 'root')
    assert listing.images == {'a': ['a/1.JPG', 'a/2.WebP', 'a/6.gif'], 'b': ['b/4.png', 'b/5.png']}
    kinds = {kind.split(',')[0]: len(names) for kind, names in listing.passed_over.items()}
    assert kinds == {
        'files without the suffix of an image': 2,
        'files with a line break in their name': 1,
        'hidden': 1,
        'links that cannot be followed': 1,
        'neither files nor folders': 1,
        'links to a folder that they lie in': 1,
        'folders without images': 1,
    }


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    _touch(tmp_path, 'a/1.jpg', 'b/2.jpg')
    scandir = os.scandir

    def closed(path):
        if str(path).endswith('b'):
            raise PermissionError(13, 'Permission denied', path)
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', closed)
    listing = list_images(tmp_path)
    assert listing.images == {'a': ['a/1.jpg']}
    assert listing.passed_over['folders that cannot be read, Permission denied'] == ['b']
    with pytest.raises(FileNotFoundError):
        list_images(tmp_path / 'absent')


def test_names_of_other_bytes_can_be_logged(tmp_path):
    name = os.fsdecode(b'\xe9t\xe9.jpg')
    (tmp_path / name).touch()
    assert list_images(tmp_path).images == {'': [name]}
    assert printable(name) == b'\\xe9t\\xe9.jpg'.decode() and printable('é.jpg') == 'é.jpg'


def test_what_is_held_out_depends_on_names_and_hardly_on_the_others():
    files = [f'a/{i}.jpg' for i in range(100)]
    kept, held_out = hold_out(files)
    assert len(held_out) == 10 and sorted(kept + held_out) == sorted(files)
    assert hold_out(files[::-1])[1] == held_out[::-1]
    more = hold_out([*files, 'a/new.jpg'])[1]
    assert len(set(held_out) - set(more)) <= 1
    # Not the first or last ones.
    assert held_out not in (files[:10], files[-10:])
    assert [len(hold_out(files[:n])[1]) for n in (0, 1, 2, 9, 10, 19, 20)] == [0, 0, 1, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ('paths', 'splits', 'unused'),
    [
        (['train/a/1.jpg', 'val/a/1.jpg'], {'train': 'train', 'val': 'val'}, []),
        (['Training/a/1.jpg', 'validation/a/1.jpg'], {'train': 'Training', 'val': 'validation'}, []),
        (['train/a/1.jpg', 'test/1.jpg', 'extra/1.jpg'], {'train': 'train', 'test': 'test'}, ['extra']),
        (['train/a/1.jpg', 'cover.jpg', 'meta/x.txt'], {'train': 'train'}, ['']),
        (['test/a/1.jpg'], {'test': 'test'}, []),
        (['val/a/1.jpg', 'valid/a/1.jpg', 'train/1.jpg'], {'train': 'train', 'val': 'val'}, ['valid']),
        # A class of trains.
        (['bus/1.jpg', 'train/1.jpg'], {}, []),
        (['1.jpg', '2.jpg'], {}, []),
    ],
)
def test_splits_are_told_from_classes(tmp_path, paths, splits, unused):
    _touch(tmp_path, *paths)
    layout = FolderLayout(tmp_path)
    assert (layout.splits, layout.unused) == (splits, unused)


def test_images_of_a_split_by_class(tmp_path):
    _touch(tmp_path, 'train/b/1.jpg', 'train/a/x/2.jpg', 'train/0.jpg', 'val/a/3.jpg')
    layout = FolderLayout(tmp_path)
    assert layout.images('train') == {'': ['train/0.jpg'], 'a': ['train/a/x/2.jpg'], 'b': ['train/b/1.jpg']}
    assert layout.classes('train') == {'a': ['train/a/x/2.jpg'], 'b': ['train/b/1.jpg']}
    assert layout.images('test') == {}
