"""The list of names that a pickle may hold: for tensors, arrays and plain values, and nothing that could run code."""

import argparse
import collections
import enum
import functools
import io
import operator
import pathlib
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

_LOCK = threading.RLock()
_CORE = np._core if hasattr(np, '_core') else np.core
# Numbers and text. Objects and records would have a layout from the file, which numpy does not check.
_DTYPES = '?bhilqBHILQefdFDUS'
# The types of arrays of the file that is read now: it can change the layout of each of them later.
_MADE: list[np.dtype] = []


class _StoredBuffer(HistoryBuffer):
    """A HistoryBuffer with the numbers of the file and the functions of this process."""

    def __setstate__(self, state: dict) -> None:
        self.__class__ = HistoryBuffer
        HistoryBuffer.__init__(self, state['_log_history'], state['_count_history'], state['max_length'])


class _OneCycle:
    """In place of mmengine's scheduler, whose state names a function by its class."""

    __module__, __qualname__ = OneCycleParamScheduler.__module__, OneCycleParamScheduler.__qualname__


_ONE_CYCLE = f'{_OneCycle.__module__}.{_OneCycle.__qualname__}'


def _look_up(owner: Any, name: str) -> Any:
    # In place of getattr, which would give a pickle access to everything. HistoryBuffer gets None.
    found = allowed()
    nested = f'{owner.__module__}.{owner.__qualname__}.{name}' if isinstance(owner, type) else None
    if nested in found:
        return found[nested]
    if owner is not _StoredBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'GLOBAL getattr({getattr(owner, "__qualname__", owner)},{name})')


def _check_dtype(dtype: np.dtype) -> None:
    plain = np.dtype(dtype.char)
    extras = dtype.flags - plain.flags or dtype.alignment - plain.alignment or dtype.itemsize < plain.itemsize
    if dtype.char not in _DTYPES or dtype.fields or dtype.subdtype or extras:
        raise pickle.UnpicklingError(f'GLOBAL numpy.dtype({dtype.char})')


def _dtype(kind: Any, *flags: Any) -> np.dtype:
    dtype = np.dtype(np.dtype(kind), *flags)
    _check_dtype(dtype)
    _MADE.append(dtype)
    return dtype


def _scalar(dtype: np.dtype, *content: Any) -> Any:
    _check_dtype(dtype)
    # numpy does not check the length of text.
    if dtype.char in 'US' and not (content and dtype.itemsize == len(content[0])):
        raise pickle.UnpicklingError('GLOBAL numpy.scalar')
    return _CORE.multiarray.scalar(dtype, *content)


def _from_buffer(content: Any, dtype: np.dtype, *layout: Any) -> np.ndarray:
    _check_dtype(dtype)
    return _CORE.numeric._frombuffer(content, dtype, *layout)


def _encode(text: str, encoding: str) -> bytes:
    # Bytes in pickles for Python 2.
    return text.encode('latin1' if encoding in ('latin1', 'latin-1') else 'utf-8')


def _storage(content: bytes) -> Any:
    # torch's function of this name unpickles anything.
    with torch_allows_the_list():
        return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)


# With a function for its class, no file can set the state of an object.
_PATH = functools.partial(pathlib.PurePosixPath)
_ALLOWED: dict[str, Any] = {
    'numpy.ndarray': np.ndarray,
    'numpy.dtype': _dtype,
    **{f'numpy.dtypes.{type(np.dtype(code)).__name__}': type(np.dtype(code)) for code in _DTYPES},
    # Values of mmengine's message hub, and the metadata of data sets.
    'mmengine.logging.history_buffer.HistoryBuffer': _StoredBuffer,
    'mmengine.config.config.ConfigDict': ConfigDict,
    # The two functions of schedules of one cycle.
    _ONE_CYCLE: _OneCycle,
    **{
        f'{_ONE_CYCLE}.{name}': getattr(OneCycleParamScheduler, name)
        for name in ('_annealing_cos', '_annealing_linear')
    },
    # Many checkpoints hold the command line.
    'argparse.Namespace': argparse.Namespace,
    **{
        f'{module}.{name}': _PATH for module in ('pathlib', 'pathlib._local') for name in ('PosixPath', 'PurePosixPath')
    },
    'builtins.getattr': _look_up,
    'builtins.slice': slice,
    'builtins.frozenset': frozenset,
    # What torch allows by itself, for pickles that torch did not write, and containers.
    'builtins.bytearray': bytearray,
    'builtins.complex': complex,
    'builtins.long': int,
    'builtins.set': set,
    # The types with which a defaultdict starts an entry.
    **{f'builtins.{kind.__name__}': kind for kind in (list, dict, int, float, str, tuple)},
    'collections.OrderedDict': collections.OrderedDict,
    'collections.Counter': collections.Counter,
    'collections.defaultdict': collections.defaultdict,
    'collections.deque': collections.deque,
    '_codecs.encode': _encode,
    'torch.Size': torch.Size,
    'torch.device': torch.device,
    'torch.storage._load_from_bytes': _storage,
    'torch._utils._rebuild_tensor_v2': torch._utils._rebuild_tensor_v2,
    'torch._utils._rebuild_parameter': torch._utils._rebuild_parameter,
    **{str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)},
}
# The names of numpy's modules before and since version 2.
for _name in ('numpy.core', 'numpy._core'):
    _ALLOWED[f'{_name}.multiarray._reconstruct'] = _CORE.multiarray._reconstruct
    _ALLOWED[f'{_name}.multiarray.scalar'] = _scalar
    _ALLOWED[f'{_name}.numeric._frombuffer'] = _from_buffer
# Allowed if they are imported: the parts of a tensor (sharded FSDP), and the state of DeepSpeed's optimizer.
_IF_IMPORTED = (
    'torch.distributed._shard.metadata:ShardMetadata',
    'torch.distributed._shard.sharded_tensor.api:ShardedTensor',
    'torch.distributed._shard.sharded_tensor.api:ShardedTensor.ProcessGroupState',
    'torch.distributed._shard.sharded_tensor.metadata:MEM_FORMAT_ENCODING',
    'torch.distributed._shard.sharded_tensor.metadata:ShardedTensorMetadata',
    'torch.distributed._shard.sharded_tensor.metadata:TensorProperties',
    'torch.distributed._shard.sharded_tensor.shard:Shard',
    'torch.distributed._shard.sharding_spec.api:EnumerableShardingSpec',
    'torch.distributed._shard.sharding_spec.chunk_sharding_spec:ChunkShardingSpec',
    'torch.distributed.remote_device:_remote_device',
    'deepspeed.runtime.fp16.loss_scaler:DynamicLossScaler',
    'deepspeed.runtime.fp16.loss_scaler:LossScaler',
    'deepspeed.runtime.zero.config:ZeroStageEnum',
    'deepspeed.utils.tensor_fragment:fragment_address',
)


def allowed() -> dict[str, Any]:
    """What a pickle gets for the full name of a class, function or constant."""
    found = dict(_ALLOWED)
    for entry in _IF_IMPORTED:
        module, _, attribute = entry.partition(':')
        with suppress(KeyError, AttributeError):
            value = operator.attrgetter(attribute)(sys.modules[module])
            # The whole process shares the members.
            is_enum = isinstance(value, enum.EnumMeta)
            found[f'{module}.{attribute}'] = functools.partial(value) if is_enum else value
    return found


@contextmanager
def checked_arrays() -> Iterator[None]:
    """Refuse, at the end, a file that has changed the layout of the type of an array."""
    with _LOCK:
        before = len(_MADE)
        try:
            yield
            for dtype in _MADE[before:]:
                _check_dtype(dtype)
        finally:
            del _MADE[before:]


@contextmanager
def torch_allows_the_list() -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` accept :func:`allowed`, and nothing that other packages allow."""
    with checked_arrays():
        before = torch.serialization.get_safe_globals()
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals([(value, name) for name, value in allowed().items()])
        try:
            yield
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)
