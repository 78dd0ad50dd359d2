"""How a folder of images is laid out: splits, classes, or images alone."""

from pathlib import Path

from .folder_listing import list_images

# What people call the parts of a data set.
_SPLITS = {
    'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
    'testing': 'test',
}  # fmt: skip


class FolderLayout:
    """The images of a folder by split and class: ``root/SPLIT/CLASS/*``, ``root/CLASS/*`` or ``root/*``.

    A folder ``train`` beside ``val`` or ``test`` is a split, and so is one of these that is alone; else such names are
    classes like others.

    Args:
        root (str | Path): The folder.

    Attributes:
        root (Path): The folder.
        splits (dict[str, str]): The folders of 'train', 'val' and 'test'; empty if it has no splits.
        unused (list[str]): Folders with images beside the splits.

    Raises:
        OSError: If the folder is not there or cannot be read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._images = list_images(root).images
        splits = {}
        for name in sorted(self._images, key=lambda name: (name not in _SPLITS.values(), name)):
            if name.lower() in _SPLITS:
                splits.setdefault(_SPLITS[name.lower()], name)
        others = [name for name in self._images if name not in splits.values()]
        if ('train' in splits and len(splits) > 1) or (splits and not any(others)):
            self.splits, self.unused = splits, others
        else:
            self.splits, self.unused = {}, []

    def images(self, split: str | None = None) -> dict[str, list[str]]:
        """Images by class, those that lie in no folder of a class under ``''``.

        Args:
            split (str, optional): 'train', 'val' or 'test'. None takes the classes of a folder without splits.

        Returns:
            dict[str, list[str]]: Paths relative to the root, sorted; empty if there is no such split.
        """
        if split is None:
            return self._images
        groups: dict[str, list[str]] = {}
        for path in self._images.get(self.splits.get(split), ()):
            name, slash, _ = path.partition('/')[2].partition('/')
            groups.setdefault(name if slash else '', []).append(path)
        return {name: groups[name] for name in sorted(groups)}

    def classes(self, split: str | None = None) -> dict[str, list[str]]:
        """As :meth:`images`, without those that lie in no folder of a class."""
        return {name: files for name, files in self.images(split).items() if name}
