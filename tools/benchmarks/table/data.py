"""Which images a table trains and evaluates on: the data sets of the configs or a folder, all or a part of them."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmmap.datasets.decoded_images import square_transforms
from mmmap.engine.checkpoint import AtomicLocalBackend
from mmmap.engine.errors import UserError

_TRAIN_LOADERS = ('train_dataloader', 'bank_dataloader')
_EVALUATION_LOADERS = ('val_dataloader', 'test_dataloader', 'query_dataloader')
_SUFFIXES = {'.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif'}
# Data sets that give arrays in RGB, and no files: they download into their data_root. All have so many images.
_ARRAYS = ('CIFAR10', 'CIFAR100')
_ARRAY_IMAGES = 50000
# Files are loaded as BGR; what follows in these pipelines, and the data preprocessor, expect RGB.
_TO_RGB = [dict(type='NumpyToPIL', to_rgb=True), dict(type='PILToNumpy')]
_IMAGENET_IMAGES = 1281167
_HELD_OUT = 10  # One image in so many is held out by the split 'val'.


def _data_sets(node: object, is_train: bool | None = None) -> Iterator[tuple[dict, bool]]:
    """Every data set in a config, those within hooks included, with whether it is for training."""
    if isinstance(node, dict):
        if is_train is not None and 'pipeline' in node and 'type' in node:
            yield node, is_train
            return
        for key, value in node.items():
            side = True if key in _TRAIN_LOADERS else False if key in _EVALUATION_LOADERS else is_train
            yield from _data_sets(value, side)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _data_sets(value, is_train)


def _set_num_classes(node: object, number: int) -> None:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'num_classes':
                node[key] = number
            else:
                _set_num_classes(value, number)
    elif isinstance(node, (list, tuple)):
        for value in node:
            _set_num_classes(value, number)


def _size(cfg: Config) -> int:
    """Height and width of the images that a config's backbone is made for."""
    return cfg.model.backbone.img_size


class ConfigData:
    """The data sets that the configs name.

    Args:
        images (int, optional): Train on so many images; None takes all. The first ones, as CIFAR-10's order is
            random already: the classes are about, not exactly, as frequent as each other.
        split (str): 'test', or 'val' to hold the last tenth of the training images out and evaluate on these.
    """

    def __init__(self, images: int | None, split: str) -> None:
        self.images, self.split = images, split

    def apply(self, cfg: Config) -> dict:
        """Put the data sets into a config, in place.

        Args:
            cfg (Config): The config of a run.

        Returns:
            dict: ``train``, the number of training images (None if unknown), and ``split``.

        Raises:
            UserError: If a part is asked of a data set other than CIFAR's.
        """
        train = None
        for data_set, is_train in _data_sets(cfg._cfg_dict):
            kind = data_set['type'].split('.')[-1]
            if kind not in _ARRAYS:
                if self.images is not None or self.split == 'val':
                    raise UserError(f'--images and --split val of a {kind} data set need --data DIR')
                train = _IMAGENET_IMAGES if kind == 'ImageNet' else None
                continue
            kept = _ARRAY_IMAGES * (_HELD_OUT - 1) // _HELD_OUT if self.split == 'val' else _ARRAY_IMAGES
            train = kept if self.images is None else self.images
            if train > kept:
                raise UserError(f'--images {train}: there are {kept} to train on')
            if is_train and train < _ARRAY_IMAGES:
                data_set['indices'] = range(train)
            elif not is_train and self.split == 'val':
                data_set.update(split='train', indices=range(kept, _ARRAY_IMAGES))
        return dict(train=train, split=self.split)


class FolderData:
    """Images of a folder ``root/{train,test}/CLASS/*`` in place of the data sets of the configs.

    Args:
        root (Path): The folder; ``val`` serves where it has no ``test``.
        images (int, optional): Train on so many images, evenly over the classes, the same for every run; None takes
            all. A smaller number takes a part of what a larger one takes.
        split (str): 'test', or 'val' to hold a tenth of the training images of each class out, the same for any
            number of images, and evaluate on these.
        lists (Path): Folder for the lists of the images.

    Attributes:
        classes (list[str]): Names of the classes.

    Raises:
        UserError: If the folder is not laid out so, or has too few images.
    """

    def __init__(self, root: Path, images: int | None, split: str, lists: Path) -> None:
        self.root, self.split = root.resolve(), split
        train = self._find('train')
        self.classes = list(train)
        if split == 'val':
            held_out = {name: files[: len(files) // _HELD_OUT] for name, files in train.items()}
            train = {name: files[len(files) // _HELD_OUT :] for name, files in train.items()}
        else:
            held_out = self._find('test' if (self.root / 'test').is_dir() else 'val')
            if list(held_out) != self.classes:
                raise UserError(f'{self.root}: the classes of train and {split} differ')
        if images is not None:
            share, rest = divmod(images, len(train))
            wanted = {name: share + (index < rest) for index, name in enumerate(train)}
            for name, number in wanted.items():
                if number > len(train[name]):
                    raise UserError(f'--images {images}: class {name} has {len(train[name])} images, needs {number}')
            train = {name: files[: wanted[name]] for name, files in train.items()}
        part = 'all' if images is None else str(images)
        self.train_list, train_text = self._list(lists / f'train_{split}_{part}.txt', train)
        self.test_list, test_text = self._list(lists / f'{split}.txt', held_out)
        if not train_text or not test_text:
            raise UserError(f'{self.root}: no images are left to {"evaluate on" if train_text else "train on"}')
        self._facts = dict(
            train=train_text.count('\n'),
            split=split,
            sha256=hashlib.sha256((train_text + test_text).encode()).hexdigest(),
        )

    def _find(self, part: str) -> dict[str, list[str]]:
        folder = self.root / part
        names = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if not names:
            raise UserError(f'no folders of classes in {folder}: expected {self.root}/{{train,test}}/CLASS/*')
        found = {}
        for name in names:
            files = sorted(
                path.relative_to(self.root).as_posix()
                for path in (folder / name).iterdir()
                if path.suffix.lower() in _SUFFIXES
            )
            # In an order that has nothing to do with how the files are named.
            random.Random(f'{part}/{name}').shuffle(files)
            found[name] = files
        return found

    def _list(self, path: Path, files: dict[str, list[str]]) -> tuple[Path, str]:
        text = ''.join(
            f'{file} {self.classes.index(name)}\n' for name, of_class in files.items() for file in sorted(of_class)
        )
        AtomicLocalBackend().put_text(text, path)
        return path.resolve(), text

    def apply(self, cfg: Config) -> dict:
        """Put the folder into a config, in place.

        The pipelines get images like those of the data set that the config names. Where that has squares of one size,
        as CIFAR's and ``DecodedImages`` have, the short side is resized to the backbone's size and the centre cut out.
        CIFAR's are RGB. All else is left to the pipelines.

        Args:
            cfg (Config): The config of a run.

        Returns:
            dict: ``train``, the number of training images, ``split`` and ``sha256`` of both lists.
        """
        for data_set, is_train in _data_sets(cfg._cfg_dict):
            kind, pipeline = data_set['type'].split('.')[-1], list(data_set['pipeline'])
            own = dict(type='CustomDataset')
            if kind in _ARRAYS:
                pipeline = [*square_transforms(_size(cfg), strict=not is_train), *_TO_RGB, *pipeline]
            elif kind == 'DecodedImages':
                own = dict(type=kind, size=_size(cfg))
            test_mode = data_set.get('test_mode', False)
            data_set.clear()
            data_set.update(
                **own,
                data_root=str(self.root),
                ann_file=str(self.train_list if is_train else self.test_list),
                metainfo=dict(classes=self.classes),
                pipeline=pipeline,
                test_mode=test_mode,
            )
        for key in ('model', 'data_preprocessor'):
            _set_num_classes(cfg._cfg_dict.get(key), len(self.classes))
        return dict(self._facts)
