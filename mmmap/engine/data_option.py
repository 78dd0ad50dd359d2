"""The option ``--data DIR`` of the tools: makes image configs read a folder of images."""

import difflib
import os
from pathlib import Path

from mmengine.config import Config

from mmmap.datasets.folder_layout import FolderLayout
from mmmap.datasets.folder_listing import first_names, hold_out, list_images
from mmmap.utils.safe_load import load

from ..utils.errors import UserError
from .checkpoint_files import check_checkpoint_file
from .config_datasets import TRAIN_ROLES, find_datasets, is_classifier, reads_images, replace_datasets, set_num_classes
from .config_parts import type_name
from .data_option_shards import ShardData, shards_by_split
from .small_datasets import limit_batch_size, limit_neighbours

_LAYOUTS = '{root}/{{train,val}}/CLASS/* or {root}/CLASS/*'


class FolderData:
    """A folder of images as data sets for a config.

    Args:
        root (str): The folder.
        classes (list[str], optional): Class names in the order of their labels. None takes those of the training
            images.
        flat_used (bool): Whether the training uses images outside the folders of classes. Defaults to False.

    Raises:
        UserError: If the folder has no image.
    """

    def __init__(self, root: str, classes: list[str] | None = None, flat_used: bool = False) -> None:
        self.root = root
        self.flat_used = flat_used
        self.layout = FolderLayout(root)
        if not self.layout.images():
            raise UserError(f'--data {root}: no images in it')
        if len(self.layout.images()) == 1 and not self.layout.splits:
            inner = os.path.join(root, *self.layout.images())
            splits = FolderLayout(inner).splits
            if 'train' in splits:
                raise UserError(f'--data {root}: {", ".join(splits.values())} lie in {inner}: give --data {inner}')
        self.split = next((split for split in ('train', 'val', 'test') if split in self.layout.splits), None)
        self.classes = list(self.layout.classes(self.split)) if classes is None else classes

    @property
    def is_labelled(self) -> bool:
        """Whether there are at least two classes."""
        return len(self.classes) > 1

    def _require_train(self) -> None:
        if self.split not in (None, 'train'):
            raise UserError(f'--data {self.root}: no folder train beside {", ".join(self.layout.splits.values())}')

    def _source(self, role: str) -> tuple[str | None, str]:
        """The split of a labelled set, and its part: ``'train'``, ``'val'`` or ``'all'``."""
        order = dict(test=('test', 'val'), val=('val', 'test'), query=('val', 'test')).get(role, ())
        found = next((split for split in order if self.layout.classes(split)), None)
        if found is not None:
            return found, 'all'
        self._require_train()
        has_other = any(self.layout.classes(split) for split in ('val', 'test'))
        return self.split, 'all' if has_other else 'train' if role in TRAIN_ROLES else 'val'

    def labelled_dataset(self, role: str) -> tuple[dict, int]:
        """The config of a labelled data set, and its number of images.

        Raises:
            UserError: If a class is unknown, or there is no image.
        """
        split, part = self._source(role)
        groups = self.layout.classes(split)
        where = os.path.join(self.root, self.layout.splits.get(split, ''))
        unknown = [name for name in groups if name not in self.classes]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.classes, n=1)
            raise UserError(
                f'--data {self.root}: {where} has folders of {len(unknown)} classes that the training has not: '
                f'{first_names(unknown)}{f" (did you mean {near[0]}?)" if near else ""}; it has '
                f'{first_names(self.classes)}'
            )
        if part != 'all':
            groups = {name: hold_out(files)[part == 'val'] for name, files in groups.items()}
        number = sum(map(len, groups.values()))
        if not groups:
            raise UserError(f'--data {self.root}: no folders of classes in {where}')
        if not number:
            raise UserError(
                f'--data {self.root}: no class has two images, so that none can be held out: put some into '
                f'{self.root}/train/CLASS and others into {self.root}/val/CLASS'
            )
        arguments = dict(data_prefix=self.layout.splits.get(split, ''), classes=self.classes, part=part)
        # An evaluation cannot take another image in place of a broken one.
        return dict(type='ImageFolder', **arguments, leave_out_broken=role != 'train'), number

    def unlabelled_dataset(self) -> tuple[dict, int]:
        """The config of a data set of all training images, and its number of images."""
        self._require_train()
        number = sum(map(len, self.layout.images(self.split).values()))
        arguments = dict(data_prefix=self.layout.splits.get(self.split, ''), with_label=False)
        return dict(type='ImageFolder', **arguments), number

    def describe(self, held_out: str) -> str:
        """One line about the images and classes; ``held_out`` is the purpose of held-out images, '' for none."""
        splits, layout = self.layout.splits, self.layout
        counts = [(sum(map(len, layout.images(split).values())), f' in {name}') for split, name in splits.items()]
        counts = counts or [(sum(map(len, layout.images().values())), '')]
        text = f'--data {self.root}: {", ".join(f"{number} images{where}" for number, where in counts)}; '
        text += f'{len(self.classes)} classes: {first_names(self.classes)}' if self.is_labelled else 'no classes'
        if held_out:
            text += f'; a tenth of the images of each class, chosen by their names, is {held_out}'
        unused = [name or 'images beside the folders' for name in layout.unused]
        for split in splits or [None]:
            flat = len(layout.images(split).get('', ()))
            if flat and self.is_labelled and not (self.flat_used and split == self.split):
                unused.append(f'{flat} images in {splits.get(split, self.root)} beside the folders of classes')
        if unused:
            text += f'; not used: {first_names(unused)}'
        return text


def _find_data(cfg: Config, root: str, classes: list[str] | None, flat_used: bool) -> FolderData | ShardData:
    if not Path(root).is_dir():
        raise UserError(f'--data: folder not found: {os.path.abspath(root)}')
    for data_set, _ in find_datasets(cfg._cfg_dict):
        if not reads_images(data_set, cfg.get('default_scope')):
            kind = type_name(data_set.get('type', 'no data set'))
            raise UserError(f'--data: {cfg.filename} reads {kind}, not images with one label each or none')
    # A folder of images may still hold the archives that they came in.
    if shards_by_split(root) and not list_images(root).images:
        return ShardData(root, classes)
    return FolderData(root, classes, flat_used)


def use_folder(cfg: Config, root: str, roles: tuple[str, ...], classes: list[str] | None = None) -> list[str]:
    """Make a config read a folder of images, in place. Sets the number of classes, and limits for small data sets.

    Args:
        cfg (Config): The config of a pretraining, a fine-tuning, a probe or a kNN evaluation of images.
        root (str): The folder: ``root/{train,val,test}/CLASS/*``, ``root/CLASS/*``, or any images to pretrain on.
        roles (tuple[str, ...]): The ``ROLES`` that the tool needs. Data sets of other roles are kept if the folder has
            no images for them.
        classes (list[str], optional): See :class:`FolderData`.

    Returns:
        list[str]: Messages for the user, one line each.

    Raises:
        UserError: If the folder does not fit the config.
    """
    classifier, messages = is_classifier(cfg), []
    data = _find_data(cfg, root, classes, not classifier and 'train' in roles)
    # The Runner does not read these variables; hooks and loops have copies of them.
    for name in ('bank_dataloader', 'query_dataloader'):
        cfg.pop(name, None)
    knn_hooks = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook['type']) == 'KNNHook']
    if not data.is_labelled:
        if classifier or ('test' in roles and 'bank_dataloader' in (cfg.get('test_cfg') or {})):
            raise UserError(
                f'--data {root}: this config needs the images of two or more classes, in {_LAYOUTS.format(root=root)}; '
                f'folders of classes found: {first_names(data.classes) or "none"}'
            )
        if knn_hooks:
            cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook not in knn_hooks]
            messages.append(f'--data {root}: without classes there is no kNN accuracy; KNNHook is left out')
    numbers: dict[str, int] = {}
    held_out = False

    def settings(role: str, old: dict) -> dict | None:
        nonlocal held_out
        try:
            is_labelled = classifier or role != 'train'
            arguments, numbers[role] = data.labelled_dataset(role) if is_labelled else data.unlabelled_dataset()
        except UserError:
            if role in roles:
                raise
            return None
        if (indices := old.get('indices')) is not None:
            numbers[role] = min(numbers[role], abs(indices) if isinstance(indices, int) else len(indices))
        held_out |= arguments.get('part', 'all') != 'all'
        return dict(data_root=root, **arguments, test_mode=role not in TRAIN_ROLES)

    replace_datasets(cfg, settings)
    purpose = 'held out for the evaluation' if classifier else 'classified by kNN with the others'
    if 'test' in roles:
        purpose += ' (to evaluate on all images, put them into a folder test)'
    messages.insert(0, data.describe(purpose if held_out else ''))
    changes = set_num_classes(cfg, len(data.classes)) if classifier else []
    if 'bank' in numbers:
        changes += limit_neighbours(cfg, 'custom_hooks' if 'train' in roles else 'test_cfg', numbers['bank'])
    if 'train' in roles:
        changes += limit_batch_size(cfg, numbers['train'])
    return messages + [f'--data {root}: {change}' for change in changes]


def use_test_folder(cfg: Config, root: str, checkpoint: str | None) -> list[str]:
    """Make the evaluation of a checkpoint read a folder of images, as :func:`use_folder` does.

    A classifier is evaluated on the classes that are named in its checkpoint. Without a checkpoint, or without names in
    it, the classes are those of the folder.
    """
    classes = None
    if checkpoint is not None and is_classifier(cfg):
        check_checkpoint_file(checkpoint)
        meta = load(checkpoint, 'cpu', mmap=True).get('meta') or {}
        classes = (meta.get('dataset_meta') or {}).get('classes')
    return use_folder(cfg, root, ('test', 'bank'), classes and list(classes))
