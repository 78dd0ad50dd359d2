"""Loading of pickles from others: tensors, arrays and plain values, and nothing that could run code.

Files with a name that is not in :mod:`~mmmap.utils.safe_globals` are refused. ``MMMAP_TRUST_CHECKPOINT=PATH`` excepts
one file or folder.
"""

import os
import pickle
import re
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from mmengine.logging import print_log

from .checkpoint_content import check_content
from .errors import DamagedFileError, RefusedFileError
from .file_damage import first_damage
from .safe_globals import allowed, checked_arrays, torch_allows_the_list

#: Names one file, folder or address whose pickles may call anything.
TRUST_VARIABLE = 'MMMAP_TRUST_CHECKPOINT'
_PYTHON_2 = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}


def is_trusted(name: str | Path) -> bool:
    """Whether ``MMMAP_TRUST_CHECKPOINT`` names a file or address, or the checkpoint folder it is in; logged if so."""
    trusted = os.environ.get(TRUST_VARIABLE)
    if not trusted:
        return False
    if str(name) != trusted:
        path, trusted = (os.path.realpath(os.path.expanduser(p)) for p in (str(name), trusted))
        if path != trusted and not (trusted.endswith('.pth') and os.path.dirname(path) == trusted):
            return False
    print_log(f'{TRUST_VARIABLE}: {name} is loaded as it is; code in it runs', 'current')
    return True


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turn errors of loading into one line that names the file."""
    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError, RefusedFileError, DamagedFileError):
        raise
    except Exception as error:  # Damaged pickles raise many kinds of errors.
        text = ' '.join(str(error).split())
        # torch's second message is about a class that it cannot fill.
        found = re.search(r"GLOBAL (\S+)|but got <(?:class|enum) '(\S+)'>", text)
        if found:
            raise RefusedFileError(
                f'{name} holds {found[1] or found[2]}, which is no data and could run code: nothing of it was loaded. '
                "Its owner can save the weights alone, torch.save({'state_dict': model.state_dict()}, FILE). "
                'If you trust it: '
                f'{TRUST_VARIABLE}={name}'
            ) from error
        # torch advises here to load the file unsafely.
        text = text.rpartition('WeightsUnpickler error:')[2].strip()
        raise DamagedFileError(f'{name} cannot be loaded ({type(error).__name__}: {text[:200]})') from error


@contextmanager
def allowing(name: str) -> Iterator[dict[str, bool]]:
    """Let a function of torch load what :func:`load` would, with its messages; yields the options for torch."""
    if is_trusted(name):
        yield dict(weights_only=False)
    else:
        with _explained(name), torch_allows_the_list():
            yield dict(weights_only=True)


def load(file: str | Path | BinaryIO, map_location: Any = None, name: str | None = None, **kwargs: Any) -> Any:
    """Load the tensors, arrays and plain values of an undamaged file of ``torch.save``.

    Args:
        file (str | Path | BinaryIO): A local file, or an open one.
        map_location (Any, optional): As for :func:`torch.load`.
        name (str, optional): What to call the file in messages. Defaults to its path.
        **kwargs (Any): More arguments of :func:`torch.load`, ``mmap`` for example.

    Raises:
        FileNotFoundError: If there is no such file.
        RefusedFileError: If it holds anything else.
        DamagedFileError: If it is cut off, changed or of another kind.
    """
    if isinstance(file, (str, os.PathLike)):
        name, file = name or str(file), os.path.expanduser(file)
        if not os.path.isfile(file):
            raise FileNotFoundError(f'{name}: {"a folder, not a file" if os.path.isdir(file) else "no such file"}')
        if (damage := first_damage(file)) is not None:
            raise DamagedFileError(f'{name} {damage}')
    name = name or 'the checkpoint'
    with allowing(name) as options:
        return torch.load(file, map_location=map_location, **options, **kwargs)


def load_checkpoint(path: str | Path, map_location: Any = 'cpu', **kwargs: Any) -> dict:
    """:func:`load` a local file, and check its content by :func:`~mmmap.utils.checkpoint_content.check_content`."""
    return check_content(load(path, map_location, **kwargs), str(path))


class _SafeUnpickler(pickle._Unpickler):
    """Python's unpickler with checks of the two steps that reach outside of the file, names and states."""

    stack: list[Any]

    def __init__(self, file: BinaryIO) -> None:
        # Pickles of Python 2 hold the bytes of arrays as strings.
        super().__init__(file, encoding='latin1')
        self.names = allowed()

    def find_class(self, module: str, name: str) -> Any:
        full = f'{_PYTHON_2.get(module, module)}.{name}'
        if full not in self.names:
            raise pickle.UnpicklingError(f'GLOBAL {full}')
        return self.names[full]

    def load_build(self) -> None:
        # The original also changes classes and functions, for the whole process.
        state = self.stack.pop()
        owner = self.stack[-1]
        kind = type(owner)
        if not any(kind is value for value in self.names.values()):
            named = owner if hasattr(owner, '__qualname__') else kind
            raise pickle.UnpicklingError(f'GLOBAL {named.__module__}.{named.__qualname__}')
        if hasattr(kind, '__setstate__'):
            kind.__setstate__(owner, state)
            return
        attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
        attributes, slots = attributes or {}, slots or {}
        for name in (*attributes, *slots):
            of_class = getattr(kind, name, None)
            is_slot = isinstance(of_class, types.MemberDescriptorType)
            # Another method would fail, or do something else, where the object is used.
            if callable(of_class) or (name in slots and not is_slot):
                raise pickle.UnpicklingError(f'GLOBAL {kind.__module__}.{kind.__qualname__}.{name}')
        if attributes:
            vars(owner).update(attributes)
        for name, value in slots.items():
            setattr(owner, name, value)

    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}


def unpickle(file: str | Path | BinaryIO, name: str | None = None) -> Any:
    """Read a pickle of tensors, arrays and plain values.

    Args:
        file (str | Path | BinaryIO): A local file, or an open one.
        name (str, optional): What to call the file in messages. Defaults to its path.

    Raises:
        FileNotFoundError: If there is no such file.
        RefusedFileError: If it holds anything else.
        DamagedFileError: If it is cut off or no pickle.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            return unpickle(opened, name or str(file))
    name = name or 'the pickle'
    if is_trusted(name):
        return pickle.load(file, encoding='latin1')
    with _explained(name), checked_arrays():
        return _SafeUnpickler(file).load()
