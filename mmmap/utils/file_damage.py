"""Checks whether a file was changed after it was written."""

import zipfile
from pathlib import Path

from .origin_mark import is_settled, state_of

# States of files that were found whole: a run checks a file early and loads it later.
_WHOLE: set[tuple] = set()


def first_damage(path: str | Path) -> str | None:
    """Compare a file of ``torch.save`` with its checksums (CRC-32); 1 GB takes about one second.

    An unchanged file is not read again. Files of torch before 1.6 have no checksums and count as whole.

    Returns:
        str | None: What is wrong, in a few words; None if nothing is.
    """
    try:
        key = state_of(path)
        if key in _WHOLE:
            return None
        damage = _compare(path)
        settled = is_settled(path)
    except OSError as error:
        return f'cannot be read ({error.strerror or error})'
    if damage is None and settled:
        _WHOLE.add(key)
    return damage


def _compare(path: str | Path) -> str | None:
    with open(path, 'rb') as file:
        start = file.read(4)
    if not start:
        return 'is empty'
    # A pickle of torch before 1.6.
    if start[:1] == b'\x80':
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if not any(name.endswith('data.pkl') for name in names):
                return 'is no file of torch.save'
            changed = archive.testzip()
    except OSError:
        raise
    except zipfile.BadZipFile as error:
        # The end of the file has the directory of the parts.
        return 'is cut off' if 'not a zip file' in str(error) and start == b'PK\x03\x04' else f'is damaged ({error})'
    except Exception as error:  # A damaged directory raises many kinds of errors.
        return f'is damaged ({type(error).__name__}: {error})'
    return None if changed is None else f'is damaged (checksum of its part {changed})'
