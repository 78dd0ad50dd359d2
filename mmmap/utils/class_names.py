"""Lists of class names: equal labels of two data sets mean the same only if their lists are equal."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .errors import UserError

# Names that a message shows; data sets have thousands.
_SHOWN = 3


def names_of(classes: object, where: str) -> tuple[str, ...] | None:
    """The names in the ``classes`` of a data set or a checkpoint, None if there are none.

    Args:
        classes (object): A list, tuple or array of names, or None.
        where (str): What has them, for the message.

    Raises:
        UserError: If it is something else, such as the name of a missing file.
    """
    if classes is None:
        return None
    if isinstance(classes, np.ndarray) and classes.ndim == 1:
        classes = classes.tolist()
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise UserError(f'{where}: classes={classes!r}: expected a list of names, or a file with a name on each line')
    return tuple(map(str, classes)) or None


def class_positions(names: Sequence[str], known: Sequence[str], where: str, of: str) -> list[int] | None:
    """The position of each name in another list; None if the lists are equal.

    Args:
        names (Sequence[str]): The classes.
        known (Sequence[str]): The other list.
        where (str): What has ``names``, for the message.
        of (str): What has ``known``, for the message.

    Raises:
        UserError: If a name is not in the other list, or the lists differ and one has a name twice.
    """
    if tuple(names) == tuple(known):
        return None
    if unknown := names_missing(known, names):
        missing = names_missing(names, known)
        instead = f', which has {listed(missing)} in turn' if missing else ''
        raise UserError(
            f'{where} ({len(names)} classes) has other classes than {of} ({len(known)}): {listed(unknown)} unknown to '
            f'the latter{instead}{_near_name(unknown, known)}. Give the same class the same name in both, and leave '
            'out what the latter does not know'
        )
    for part, place in ((names, where), (known, of)):
        if twice := [name for name, count in Counter(part).items() if count > 1]:
            raise UserError(
                f'{place} names {listed(twice)} twice, so that the classes of {where} and {of} cannot be told apart '
                'by name: give both the same names in the same order'
            )
    places = {name: index for index, name in enumerate(known)}
    return [places[name] for name in names]


def names_missing(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of ``wanted`` that are not in ``names``."""
    have = set(names)
    return [name for name in wanted if name not in have]


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = len(names) - _SHOWN
    return ', '.join(map(repr, names[:_SHOWN])) + (f' and {more} more' if more > 0 else '')


def _near_name(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Name two names that differ only in capitals, spaces and signs."""
    spelt = {_letters(name): name for name in known}
    like = next(((name, spelt[_letters(name)]) for name in unknown if _letters(name) in spelt), None)
    return f' ({like[0]!r} and {like[1]!r} are two names: capitals, spaces and signs count)' if like else ''


def _letters(name: str) -> str:
    return re.sub(r'[\W_]+', '', name).casefold()
