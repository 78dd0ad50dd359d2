"""Unpacking of the archives of data sets, with a progress bar; an unpacking that was killed can go on."""

import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from rich.progress import track

from .atomic_files import atomic_path


def unpack_zip(archive: str | Path, dest: str | Path, rename: Callable[[str], str | None] = str) -> int:
    """Unpack the files of a zip archive that are not there yet, with the size and the checksum of the archive.

    Args:
        archive (str | Path): The archive.
        dest (str | Path): The folder to unpack into; it is made.
        rename (Callable[[str], str | None]): Gives a file's path under ``dest`` from its path in the archive, None to
            leave it out. Defaults to the same path.

    Returns:
        int: How many files were written.

    Raises:
        ValueError: If the archive is damaged, or a path leads out of ``dest``; one line that names the archive.
    """
    archive, dest = Path(archive), Path(os.path.abspath(dest))
    try:
        with zipfile.ZipFile(archive) as content:
            missing = []
            for info in track(content.infolist(), f'{archive.name}, what is there:'):
                name = None if info.is_dir() else rename(info.filename)
                if name is None:
                    continue
                # Not resolved: folders of a data set may be links to another disk.
                target = Path(os.path.normpath(dest / name))
                if not target.is_relative_to(dest):
                    raise ValueError(f'{archive}: {info.filename} would be written outside of {dest}')
                if not _is_there(target, info):
                    missing.append((info, target))
            for info, target in track(missing, f'{archive.name}:', disable=not missing):
                with atomic_path(target) as part:
                    part.write_bytes(content.read(info))
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f'{archive} is cut off or damaged ({error}): download it again') from error
    return len(missing)


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    checksum = 0
    with open(path, 'rb') as file:
        while part := file.read(1 << 20):
            checksum = zlib.crc32(part, checksum)
    return checksum == info.CRC
