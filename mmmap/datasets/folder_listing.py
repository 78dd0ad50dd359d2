"""Listing of the images in a folder, and of everything else in it."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from .image_reader import IMAGE_SUFFIXES

# Files and folders that systems and archivers create. Names that begin with a dot are hidden as well.
_HIDDEN = frozenset(
    {'__macosx', 'thumbs.db', 'ehthumbs.db', 'desktop.ini', '@eadir', '$recycle.bin', 'system volume information'}
)
_EXAMPLES = 5
_NAMED = 10
_HELD_OUT = 10  # One image in so many is held out.


@dataclass
class FolderListing:
    """The images in a folder and all folders below it.

    Args:
        root (str): The folder.
        images (dict[str, list[str]]): Paths relative to the root, sorted, by the first folder below the root; ``''``
            for images in the root itself. Folders without images are left out.
        passed_over (dict[str, list[str]]): Paths of everything else, by the reason.
    """

    root: str
    images: dict[str, list[str]] = field(default_factory=dict)
    passed_over: dict[str, list[str]] = field(default_factory=dict)

    def pass_over(self, kind: str, names: Iterable[str]) -> None:
        """Record paths that are left out. ``kind`` is the reason, in the plural."""
        self.passed_over.setdefault(kind, []).extend(names)

    def describe(self) -> str:
        """Describe what was passed over: a line for each kind, with its number and the first names, or ''."""
        lines = []
        for kind, names in self.passed_over.items():
            first = sorted(names)[:_EXAMPLES]
            more = ', ...' if len(names) > len(first) else ''
            lines.append(f'\n  {kind}: {len(names)} ({", ".join(map(printable, first))}{more})')
        return ''.join(lines)


def printable(path: str) -> str:
    """Make a path safe for the log: bytes that are not UTF-8 are written as numbers."""
    return path.encode(errors='surrogateescape').decode(errors='backslashreplace')


def first_names(names: Iterable[str]) -> str:
    """Write the first ten names, and the number of all."""
    names = [printable(name) for name in names]
    return ', '.join(names[:_NAMED]) + (f', ... ({len(names)} in all)' if len(names) > _NAMED else '')


def list_images(root: str | Path) -> FolderListing:
    """List the images in a folder and all folders below it, by their suffixes.

    Links are followed. Files are not opened, so that a million images take seconds.

    Args:
        root (str | Path): The folder.

    Raises:
        FileNotFoundError: If it is missing.
        OSError: If it cannot be read. A folder below it that cannot be read is passed over.
    """
    root = os.fspath(root)
    listing = FolderListing(root)
    found: dict[str, list[str]] = {}
    # Folders to read, each with the identities of the folders above it: a link to one of those is a loop.
    waiting = [('', frozenset({_identity(root)}))]
    while waiting:
        folder, above = waiting.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as scan:
                entries = list(scan)
        except OSError as error:
            if not folder:
                raise
            listing.pass_over(f'folders that cannot be read, {error.strerror}', [folder])
            continue
        for entry in entries:
            path = f'{folder}/{entry.name}' if folder else entry.name
            kind, identity = _kind(entry)
            if identity is not None:
                if identity in above:
                    listing.pass_over('links to a folder that they lie in', [path])
                    continue
                waiting.append((path, above | {identity}))
                if not folder:
                    found.setdefault(path, [])
            elif kind == 'image':
                found.setdefault(path.partition('/')[0] if folder else '', []).append(path)
            else:
                listing.pass_over(kind, [path])
    listing.images = {name: sorted(found[name]) for name in sorted(found) if found[name]}
    empty = [name for name in found if not found[name]]
    if empty:
        listing.pass_over('folders without images', empty)
    return listing


def _identity(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry) -> tuple[str, tuple[int, int] | None]:
    """Return 'folder' and its identity, or 'image' or the reason to pass over the entry, and None."""
    if entry.name.startswith('.') or entry.name.lower() in _HIDDEN:
        return 'hidden', None
    if '\n' in entry.name:
        return 'files with a line break in their name', None
    try:
        if entry.is_dir():
            return 'folder', _identity(entry.path)
        if not entry.is_file():
            return ('dangling links' if entry.is_symlink() else 'neither files nor folders'), None
    # Long chains of links, and links into folders without permission.
    except OSError as error:
        return f'links that cannot be followed, {error.strerror}', None
    is_image = os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
    return ('image' if is_image else 'files without the suffix of an image'), None


def hold_out(files: list[str]) -> tuple[list[str], list[str]]:
    """Split the images of a class by hashes of their names, the same way on every machine.

    If an image is added or removed, at most one other image changes sides.

    Args:
        files (list[str]): Paths relative to a folder.

    Returns:
        tuple[list[str], list[str]]: Nine tenths for training, and one tenth held out (at least one of two images), both
        in the order of ``files``.
    """
    number = max(len(files) // _HELD_OUT, min(1, len(files) - 1))
    by_hash = sorted(files, key=lambda path: sha256(os.fsencode(path)).digest())
    held_out = set(by_hash[:number])
    return [path for path in files if path not in held_out], [path for path in files if path in held_out]
