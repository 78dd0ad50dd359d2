"""The option ``--data DIR`` for a folder of tar shards."""

from pathlib import Path

from mmmap.datasets.image_shards import ImageShards

from ..utils.errors import UserError
from .config_datasets import TRAIN_ROLES

_LAYOUT = '{root}/{{train,val}}/*.tar or {root}/{{train,val}}*.tar'


def shards_by_split(root: str) -> dict[str, str]:
    """The file pattern of the shards of each split ('train', 'val', 'test') in a folder; {} if there are no shards.

    The patterns are ``SPLIT/*.tar``, ``SPLIT*.tar`` or, for the training, ``*.tar``.
    """
    found: dict[str, str] = {}
    for split in ('train', 'val', 'test'):
        for pattern in (f'{split}/*.tar', f'{split}*.tar'):
            if any(Path(root).glob(pattern)):
                found.setdefault(split, pattern)
    if not found and any(Path(root).glob('*.tar')):
        found['train'] = '*.tar'
    return found


class ShardData:
    """Tar shards as data sets for a config, with the methods of :class:`~mmmap.engine.data_option.FolderData`.

    Args:
        root (str): The folder.
        classes (list[str], optional): Class names in the order of their labels. None takes those of the training
            images.

    Raises:
        UserError: If a shard is damaged; see :class:`ImageShards`.
    """

    def __init__(self, root: str, classes: list[str] | None = None) -> None:
        self.root, self.splits = root, shards_by_split(root)
        self.unlabelled_because = ''
        split = next(iter(self.splits))
        try:
            data = self._open(split, 'cls')
        except UserError as error:
            # Raises again if the shards are damaged.
            self._open(split, None)
            self.unlabelled_because, self.classes = f' ({error})', classes or []
            return
        self.classes = classes or list(data.CLASSES or map(str, range(max(data.get_gt_labels()) + 1)))

    @property
    def is_labelled(self) -> bool:
        """Whether there are at least two classes."""
        return len(self.classes) > 1

    def labelled_dataset(self, role: str) -> tuple[dict, int]:
        """The config of a labelled data set, and its number of images.

        Raises:
            UserError: If it has no shards, or they have no labels or other classes.
        """
        if not self.is_labelled:
            raise UserError(f'--data {self.root}: no classes{self.unlabelled_because}')
        order = ('train',) if role in TRAIN_ROLES else ('test', 'val') if role == 'test' else ('val', 'test')
        split = next((split for split in order if split in self.splits), None)
        if split is None:
            raise UserError(
                f'--data {self.root}: no shards of {order[0]}, only of {", ".join(self.splits)}; expected '
                f'{_LAYOUT.format(root=self.root)}'
            )
        data = self._open(split, 'cls', classes=self.classes)
        return dict(type='ImageShards', shards=self.splits[split], classes=self.classes), len(data)

    def unlabelled_dataset(self) -> tuple[dict, int]:
        """The config of a data set of all training images, and its number of images."""
        if 'train' not in self.splits:
            raise UserError(f'--data {self.root}: no shards of train beside {", ".join(self.splits)}')
        arguments = dict(shards=self.splits['train'], label=None)
        return dict(type='ImageShards', **arguments), len(self._open('train', None))

    def describe(self, held_out: str) -> str:
        """One line about the shards and classes. No image is held out."""
        found = ', '.join(f'{split}: {pattern}' for split, pattern in self.splits.items())
        classes = f'{len(self.classes)} classes' if self.is_labelled else f'no classes{self.unlabelled_because}'
        return f'--data {self.root}: tar shards of {found}; {classes}'

    def _open(self, split: str, label: str | None, classes: list[str] | None = None) -> ImageShards:
        try:
            return ImageShards(self.splits[split], label, data_root=self.root, classes=classes, serialize_data=False)
        # The message names the shard. The config is not wrong.
        except ValueError as error:
            raise UserError(str(error)) from error
