"""The images of a table: the data sets of the configs, or a folder; all of the images or a part."""

import hashlib
import random
from pathlib import Path

from mmengine.config import Config

from mmmap.datasets.folder_layout import FolderLayout
from mmmap.engine.checkpoint_files import AtomicLocalBackend
from mmmap.engine.config_datasets import TRAIN_ROLES, find_datasets, replace_datasets, set_num_classes
from mmmap.utils.class_names import listed, names_missing
from mmmap.utils.errors import UserError

# Data sets of RGB arrays, downloaded into their data_root, and their numbers of training images.
_ARRAYS = ('CIFAR10', 'CIFAR100')
_ARRAY_IMAGES = 50000
_IMAGENET_IMAGES = 1281167
_HELD_OUT = 10  # The split 'val' holds out one image in this many.


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
        for data_set, role in find_datasets(cfg._cfg_dict):
            is_train = role in TRAIN_ROLES
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
        split (str): 'test', or 'val' to hold a tenth of the training images of each class out, at least one, the same
            for any number of images, and evaluate on these.
        lists (Path): Folder for the lists of the images.

    Attributes:
        classes (list[str]): Names of the classes of the training. The images to evaluate on may lack some.

    Raises:
        UserError: If the folder is not laid out so, or has too few images.
    """

    def __init__(self, root: Path, images: int | None, split: str, lists: Path) -> None:
        self.root, self.split = root.resolve(), split
        self._layout = FolderLayout(root) if root.is_dir() else None
        train = self._find('train')
        self.classes = list(train)
        if split == 'val':
            share = {name: max(len(files) // _HELD_OUT, min(1, len(files) - 1)) for name, files in train.items()}
            held_out = {name: files[: share[name]] for name, files in train.items()}
            train = {name: files[share[name] :] for name, files in train.items()}
        else:
            held_out = self._find('test' if 'test' in self._layout.splits else 'val')
            if unknown := names_missing(self.classes, held_out):
                raise UserError(
                    f'{self.root}: {listed(unknown)} to evaluate on unknown to train, which has {listed(self.classes)}'
                )
        if images is not None:
            least, rest = divmod(images, len(train))
            wanted = {name: least + (index < rest) for index, name in enumerate(train)}
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
        found = self._layout.classes(part) if self._layout else {}
        if not found:
            raise UserError(f'no folders of classes in {self.root / part}: expected {self.root}/{{train,test}}/CLASS/*')
        for name, files in found.items():
            # In an order that does not depend on the names of the files.
            random.Random(f'{part}/{name}').shuffle(files)
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

        def settings(role: str, old: dict) -> dict:
            return dict(
                type='ImageFolder',
                data_root=str(self.root),
                ann_file=str(self.train_list if role in TRAIN_ROLES else self.test_list),
                classes=self.classes,
                test_mode=old.get('test_mode', False),
                # An evaluation stops at a broken image.
                leave_out_broken=role != 'train',
            )

        replace_datasets(cfg, settings)
        set_num_classes(cfg, len(self.classes))
        return dict(self._facts)
