"""The one way in which files of others are unpickled: tensors, arrays and plain values, and nothing that could run.

A pickle can name any function and call it. Here it gets those of one list, :data:`ALLOWED`. Files that hold anything
else are refused in one line. The variable ``MMMAP_TRUST_CHECKPOINT=PATH`` lets one file (or one folder) through.
"""

import argparse
import collections
import io
import os
import pathlib
import pickle
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from .checkpoint_content import check_content
from .errors import DamagedFileError, RefusedFileError
from .integrity import first_damage

#: Names one file, folder or address, whose pickles may call what they like.
TRUST_VARIABLE = 'MMMAP_TRUST_CHECKPOINT'

_LOCK = threading.RLock()
_CORE = np._core if hasattr(np, '_core') else np.core
# Numbers and text. Others (of objects, of records) are set up from what the file says, and numpy trusts it.
_DTYPES = '?bhilqBHILQefdFDUS'


class _StoredBuffer(HistoryBuffer):
    """Becomes mmengine's HistoryBuffer with the numbers of the file, and the functions that this process has."""

    def __setstate__(self, state: dict) -> None:
        self.__class__ = HistoryBuffer
        self.__init__(state['_log_history'], state['_count_history'], state['max_length'])


class _OneCycle:
    """Stands in for mmengine's scheduler, whose state names one of its functions by the class."""

    __module__, __qualname__ = OneCycleParamScheduler.__module__, OneCycleParamScheduler.__qualname__


_ONE_CYCLE = f'{_OneCycle.__module__}.{_OneCycle.__qualname__}'


def _look_up(owner: Any, name: str) -> Any:
    # Stands in for getattr, by which a pickle could reach anything. What HistoryBuffer looks up is not used.
    nested = f'{owner.__module__}.{owner.__qualname__}.{name}' if isinstance(owner, type) else None
    if nested in ALLOWED:
        return ALLOWED[nested]
    if owner is not _StoredBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({getattr(owner, "__qualname__", owner)},{name})')


def _dtype(kind: Any, *flags: Any) -> np.dtype:
    plain = np.dtype(kind)
    if plain.char not in _DTYPES:
        raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({kind})')
    return np.dtype(plain, *flags)


def _scalar(dtype: np.dtype, *content: Any) -> Any:
    # numpy believes the length that the file gives to a type of text.
    if dtype.char in 'US' and not (content and dtype.itemsize == len(content[0])):
        raise pickle.UnpicklingError('GLOBAL numpy.scalar')
    return _CORE.multiarray.scalar(dtype, *content)


def _encode(text: str, encoding: str) -> bytes:
    # Bytes in pickles that Python 2 could read.
    return text.encode('latin1' if encoding in ('latin1', 'latin-1') else 'utf-8')


def _storage(content: bytes) -> Any:
    # torch's own function of this name unpickles whatever it is given.
    with _torch_allows():
        return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


#: What a file may name, beside what torch allows by itself (tensors, OrderedDict, types of numbers): name -> object.
ALLOWED: dict[str, Any] = {
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': _dtype,
    **{f'numpy.dtypes.{type(np.dtype(code)).__name__}': type(np.dtype(code)) for code in _DTYPES},
    # Logged values of mmengine's message hub, and what data sets say of themselves.
    'mmengine.logging.history_buffer.HistoryBuffer': _StoredBuffer,
    'builtins.getattr': _look_up,
    # Schedules of one cycle: how they rise and fall.
    _ONE_CYCLE: _OneCycle,
    **{
        f'{_ONE_CYCLE}.{name}': getattr(OneCycleParamScheduler, name)
        for name in ('_annealing_cos', '_annealing_linear')
    },
    'mmengine.config.config.ConfigDict': ConfigDict,
    # The command line, in checkpoints of many code bases: attributes and nothing else.
    'argparse.Namespace': argparse.Namespace,
    'builtins.slice': slice,
    'builtins.frozenset': frozenset,
    **{
        f'{module}.{name}': pathlib.PurePosixPath
        for module in ('pathlib', 'pathlib._local')
        for name in ('PosixPath', 'PurePosixPath')
    },
}
# The names of numpy's modules before and since version 2.
for _name in ('numpy.core', 'numpy._core'):
    ALLOWED[f'{_name}.multiarray._reconstruct'] = _CORE.multiarray._reconstruct
    ALLOWED[f'{_name}.multiarray.scalar'] = _scalar
    ALLOWED[f'{_name}.numeric._frombuffer'] = _CORE.numeric._frombuffer

# What torch allows by itself, for pickles that torch did not write, and containers that it does not fill.
_OF_TORCH: dict[str, Any] = {
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': collections.Counter,
    'collections.defaultdict': collections.defaultdict,
    'collections.deque': collections.deque,
    # What a defaultdict starts an entry with.
    **{f'builtins.{kind.__name__}': kind for kind in (list, dict, int, float, str, tuple)},
    'builtins.long': int,
    'builtins.set': set,
    'builtins.bytearray': bytearray,
    'builtins.complex': complex,
    '_codecs.encode': _encode,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.storage._load_from_bytes': _storage,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}
_PYTHON_2 = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}


@contextmanager
def _torch_allows() -> Iterator[None]:
    """Let torch accept :data:`ALLOWED` and not what other packages have added to its list."""
    with _LOCK:
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([(value, name) for name, value in ALLOWED.items()])
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def is_trusted(name: str | Path) -> bool:
    """Tell whether the user trusts a file for this run, by ``MMMAP_TRUST_CHECKPOINT``; one line in the log if so.

    Args:
        name (str | Path): The file or address. A file in a checkpoint that is a folder is trusted with the folder.
    """
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
    """Turn what loading raises into one line that names the file."""
    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError, RefusedFileError, DamagedFileError):
        raise
    except Exception as error:  # Damaged pickles raise nearly anything.
        text = ' '.join(str(error).split())
        found = re.search(r'GLOBAL (\S+)', text)
        if found:
            raise RefusedFileError(
                f'{name} holds {found[1]}, which is no data and could run code: nothing of it was loaded. Its owner '
                "can save the weights alone, torch.save({'state_dict': model.state_dict()}, FILE). If you trust it: "
                f'{TRUST_VARIABLE}={name}'
            ) from error
        # torch advises here to load the file unsafely.
        text = text.rpartition('WeightsUnpickler error:')[2].strip()
        raise DamagedFileError(f'{name} cannot be loaded ({type(error).__name__}: {text[:200]})') from error


@contextmanager
def allowing(name: str) -> Iterator[dict[str, bool]]:
    """Let a call of torch's load what :func:`load` would, with its messages.

    Args:
        name (str): The file or address, for messages.

    Yields:
        dict[str, bool]: What to give to torch: ``weights_only``.
    """
    if is_trusted(name):
        yield dict(weights_only=False)
    else:
        with _explained(name), _torch_allows():
            yield dict(weights_only=True)


def load(file: str | Path | BinaryIO, map_location: Any = None, name: str | None = None, **kwargs: Any) -> Any:
    """Load a file of ``torch.save``; only tensors, arrays and plain values, and only if its bytes are those written.

    Args:
        file (str | Path | BinaryIO): A local file, or an open one.
        map_location (Any, optional): As for :func:`torch.load`.
        name (str, optional): What to call the file in messages. Defaults to its path.
        **kwargs (Any): More arguments of :func:`torch.load`, ``mmap`` for example.

    Raises:
        FileNotFoundError: If there is no such file.
        RefusedFileError: If it holds anything else; one line that names the first such thing.
        DamagedFileError: If it is cut off, changed or no such file.
    """
    is_path = isinstance(file, (str, os.PathLike))
    name = name or (str(file) if is_path else 'the checkpoint')
    if is_path:
        file = os.path.expanduser(file)
        if not os.path.isfile(file):
            raise FileNotFoundError(f'{name}: {"a folder, not a file" if os.path.isdir(file) else "no such file"}')
    damage = first_damage(file) if is_path else None
    if damage is not None:
        raise DamagedFileError(f'{name} {damage}')
    with allowing(name) as options:
        return torch.load(file, map_location=map_location, **options, **kwargs)


def load_checkpoint(path: str | Path, map_location: Any = 'cpu', **kwargs: Any) -> dict:
    """Load a checkpoint: :func:`load`, and what it holds is checked.

    Args:
        path (str | Path): A local file.
        map_location (Any, optional): As for :func:`torch.load`. Defaults to 'cpu'.
        **kwargs (Any): More arguments of :func:`torch.load`.

    Raises:
        FileNotFoundError: If there is no such file.
        UserError: See :func:`load` and :func:`~mmmap.utils.checkpoint_content.check_content`.
    """
    return check_content(load(path, map_location, **kwargs), str(path))


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f'{_PYTHON_2.get(module, module)}.{name}'
        for known in (ALLOWED, _OF_TORCH):
            if full in known:
                return known[full]
        raise pickle.UnpicklingError(f'GLOBAL {full}')


def unpickle(file: str | Path | BinaryIO, name: str | None = None) -> Any:
    """Read a pickle of plain values, numpy's arrays and tensors, and of nothing that could do harm.

    Args:
        file (str | Path | BinaryIO): A local file, or an open one.
        name (str, optional): What to call the file in messages. Defaults to its path.

    Raises:
        FileNotFoundError: If there is no such file.
        RefusedFileError: If it holds anything else; one line that names the first such thing.
        DamagedFileError: If it is cut off or no pickle.
    """
    if isinstance(file, (str, os.PathLike)):
        with open(file, 'rb') as opened:
            return unpickle(opened, name or str(file))
    name = name or 'the pickle'
    if is_trusted(name):
        return pickle.load(file, encoding='latin1')
    with _explained(name):
        # Pickles of Python 2 hold the bytes of arrays as strings.
        return _SafeUnpickler(file, encoding='latin1').load()
