"""Reads config files, and reports in one line what is wrong with a file."""

import traceback
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

from ..utils.errors import UserError
from ..utils.versions import TASK_LIBRARIES, check_task_library
from .config_names import find_config

# Settings of a data loader that torch accepts only together with workers.
_OF_WORKERS = ('persistent_workers', 'prefetch_factor', 'multiprocessing_context', 'timeout')


def read_config(path: str | Path) -> Config:
    """Read a config file, or an installed config, ``mmmap::map/vit-mamba_in1k.py``.

    Raises:
        UserError: If the file does not exist, it or a base of it cannot be read, or mmseg or mmdet is needed and
            missing or of a wrong version.
    """
    file = find_config(path)
    try:
        cfg = Config.fromfile(file)
    # A config is a program and can raise anything.
    except Exception as error:
        if isinstance(error, ModuleNotFoundError):
            # A base of another package, written '{package}::...', is missing.
            for library in TASK_LIBRARIES:
                if str(error).startswith(f'{MODULE2PACKAGE[library]} is not installed'):
                    _require_task_library(library, path)
        raise UserError(_why(error, path)) from error
    if isinstance(cfg.get('default_scope'), str) and cfg.default_scope in TASK_LIBRARIES:
        _require_task_library(cfg.default_scope, path)
    return cfg


def _require_task_library(library: str, path: str | Path) -> None:
    """Raise if the library of a config is missing; mmengine only warns."""
    try:
        check_task_library(library)
    except ImportError as error:
        raise UserError(f'{path}: {error}') from error


def _files(error: BaseException) -> Iterator[str]:
    """The config files that were being read, outer files first."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        # mmengine reads each base in its own call.
        name = frame.f_locals.get('filename')
        if frame.f_globals.get('__name__') == 'mmengine.config.config' and isinstance(name, str | Path):
            yield str(Path(name).absolute())


def _why(error: Exception, path: str | Path) -> str:
    """Say in one line which file and line cannot be read, and why."""
    files = list(_files(error)) or [str(Path(path).absolute())]
    chain = list(dict.fromkeys(files))
    where = f'{path}: ' if len(chain) == 1 else f'{path}: in its base {chain[-1]}: '
    text = ' '.join(str(error).split())
    if isinstance(error, SyntaxError):
        return f'{where}line {error.lineno}: SyntaxError: {error.msg}'
    # A circle ends with too many open files or calls.
    if isinstance(error, RecursionError | OSError) and len(files) > len(chain) + 20:
        return f'{path}: its _base_ files are in a circle: {" -> ".join([*chain, chain[0]])}'
    if isinstance(error, FileNotFoundError):
        return f'{where}_base_: file not found: {error.filename or text}'
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename in files]
    line = f'line {lines[-1]}: ' if lines else ''
    return f'{where}{line}{type(error).__name__}: {text}'


def drop_worker_options(part: object) -> None:
    """Remove the options of workers from every data loader of a config that has no workers, in place."""
    if isinstance(part, dict):
        for name, value in part.items():
            if str(name).endswith('dataloader') and isinstance(value, dict) and value.get('num_workers', 0) == 0:
                for option in _OF_WORKERS:
                    value.pop(option, None)
        part = list(part.values())
    for item in part if isinstance(part, list | tuple) else ():
        drop_worker_options(item)
