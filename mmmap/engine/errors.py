"""How the tools report what went wrong: one last line that names the culprit."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.config import Config

from ..utils.errors import UserError

# Set to anything but 0 to see the traceback of every error.
TRACEBACK_VARIABLE = 'MMMAP_TRACEBACK'

__all__ = ['TRACEBACK_VARIABLE', 'UserError', 'explain', 'missing_data', 'one_line_errors']

_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def _data_paths(dataset: dict, field: str) -> Iterator[tuple[str, str]]:
    """Yield every path that a data set config names, with the name of its field, wrapped data sets included."""
    root = dataset.get('data_root') or ''
    if root:
        yield f'{field}.data_root', root
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    named = {f'data_prefix.{key}': value for key, value in prefix.items()} if isinstance(prefix, dict) else {}
    if isinstance(prefix, str):
        named['data_prefix' if dataset.get('data_prefix') else 'split'] = prefix
    named['ann_file'] = dataset.get('ann_file')
    for name, value in named.items():
        if isinstance(value, str) and value:
            yield f'{field}.{name}', os.path.join(root, value)
    inner = dataset.get('dataset')
    if isinstance(inner, dict):
        yield from _data_paths(inner, f'{field}.dataset')
    for index, part in enumerate(dataset.get('datasets') or ()):
        if isinstance(part, dict):
            yield from _data_paths(part, f'{field}.datasets[{index}]')


def missing_data(cfg: Config) -> str | None:
    """Name the first path of the data sets in a config that does not exist.

    Args:
        cfg (Config): The config of a run.

    Returns:
        str | None: One line with the config field and the path; None if every path is there.
    """
    for loader in _DATALOADERS:
        dataset = (cfg.get(loader) or {}).get('dataset')
        if isinstance(dataset, dict):
            for field, path in _data_paths(dataset, f'{loader}.dataset'):
                if '://' not in path and not os.path.exists(path):
                    path = os.path.abspath(path)
                    return f'data not found: {path} (from {field}): put the data there or change the field'
    return None


def explain(error: BaseException, cfg: Config | None = None) -> str:
    """Say in one line what an error means for the user.

    Args:
        error (BaseException): What was raised.
        cfg (Config, optional): The config of the run, to name the field behind a missing file.
    """
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) and cfg is not None:
        missing = missing_data(cfg)
        if missing is not None:
            return missing
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    text = ' '.join(text.split())
    if isinstance(error, UserError):
        return text
    if not text:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f'{frame.line} ({frame.filename}:{frame.lineno})'
    where = f'{cfg.filename}: ' if cfg is not None and cfg.filename else ''
    return f'{where}{type(error).__name__}: {text}'


@contextmanager
def one_line_errors(cfg: Config | None = None, show_traceback: bool = False) -> Iterator[None]:
    """End the program with status 1 and one ``error: ...`` line when the body raises.

    Args:
        cfg (Config, optional): The config of the run, for the message.
        show_traceback (bool): Print the traceback before that line, for code in which an error is as likely a bug as
            a mistake of the user. :class:`UserError` never has one, the variable ``MMMAP_TRACEBACK=1`` always shows it.
    """
    try:
        yield
    except Exception as error:
        wanted = os.environ.get(TRACEBACK_VARIABLE, '0') != '0'
        if wanted or (show_traceback and not isinstance(error, UserError)):
            traceback.print_exc()
        rank = os.environ.get('RANK', '0')
        label = 'error' if rank == '0' else f'error (rank {rank})'
        print(f'{label}: {explain(error, cfg)}', file=sys.stderr, flush=True)
        sys.exit(1)
