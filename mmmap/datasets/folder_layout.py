"""The layout of a folder of images: splits, classes, or images alone."""

from pathlib import Path

from .folder_listing import list_images

# Common names of the splits of a data set.
_SPLITS = {
    'train': 'train', 'training': 'train', 'val': 'val', 'valid': 'val', 'validation': 'val', 'test': 'test',
    'testing': 'test',
}  # fmt: skip


class FolderLayout:
    """The images of a folder by split and class: ``root/SPLIT/CLASS/*``, ``root/CLASS/*`` or ``root/*``.

    Folders ``train``, ``val`` and ``test`` are splits if ``train`` and another one are there, or if there are no other
    folders. Otherwise they are classes.

    Args:
        root (str | Path): The folder.

    Attributes:
        root (Path): The folder.
        splits (dict[str | None, str]): The folders of 'train', 'val' and 'test'. Empty without splits.
        unused (list[str]): Other folders with images beside the splits.

    Raises:
        OSError: If the folder is missing or cannot be read.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._images = list_images(root).images
        splits: dict[str | None, str] = {}
        for name in sorted(self._images, key=lambda name: (name not in _SPLITS.values(), name)):
            if name.lower() in _SPLITS:
                splits.setdefault(_SPLITS[name.lower()], name)
        others = [name for name in self._images if name not in splits.values()]
        if ('train' in splits and len(splits) > 1) or (splits and not any(others)):
            self.splits, self.unused = splits, others
        else:
            self.splits, self.unused = {}, []

    def images(self, split: str | None = None) -> dict[str, list[str]]:
        """List the images by class. Images outside the folders of classes are listed under ``''``.

        Args:
            split (str, optional): 'train', 'val' or 'test'. None for a folder without splits.

        Returns:
            dict[str, list[str]]: Paths relative to the root, sorted. Empty if there is no such split.
        """
        if split is None:
            return self._images
        groups: dict[str, list[str]] = {}
        for path in self._images[self.splits[split]] if split in self.splits else ():
            name, slash, _ = path.partition('/')[2].partition('/')
            groups.setdefault(name if slash else '', []).append(path)
        return {name: groups[name] for name in sorted(groups)}

    def classes(self, split: str | None = None) -> dict[str, list[str]]:
        """Like :meth:`images`, without the images outside the folders of classes."""
        return {name: files for name, files in self.images(split).items() if name}
