"""How the tools report what went wrong: one last line that names the culprit."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.config import Config

from ..utils.errors import UserError

# Set to anything but 0 to see the traceback of every error.
TRACEBACK_VARIABLE = 'MMMAP_TRACEBACK'
#: Exit status after Ctrl-C, as a shell has it: 128 + SIGINT.
INTERRUPTED = 130
_TRACEBACK = 'Traceback (most recent call last):'
# What gloo, nccl and torch's store say when a process at the other end is gone.
_PEER = re.compile(
    r'Connection (closed|reset|refused) by peer|Broken pipe|remote process exited|NCCL|Gloo|gloo|TCPStore'
)

__all__ = ['INTERRUPTED', 'TRACEBACK_VARIABLE', 'UserError', 'explain', 'missing_data', 'one_line_errors']

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
                    where = f' of {cfg.filename}' if cfg.filename else ''
                    text = f'data not found: {path} (from {field}{where}): put the data there or change the field'
                    return text + _own_images(dataset, cfg)
    return None


def _own_images(dataset: dict, cfg: Config) -> str:
    """How to read images of one's own with a config, where it is for images and their folder is missing."""
    # It needs UserError.
    from .data_sets import reads_images

    root = dataset.get('data_root') or ''
    if not reads_images(dataset, cfg.get('default_scope')):
        return ''
    return f'; images of your own are read with --data {root if os.path.isdir(root) else "DIR"}'


def _of_worker(text: str) -> tuple[str, str] | None:
    """Class and message of the error at the end of a traceback that is text, if a text holds one.

    So arrive the errors of data loader workers and of processes that torch started.
    """
    if _TRACEBACK not in text:
        return None
    lines = text[text.rindex(_TRACEBACK) :].splitlines()[1:]
    # Frames and source lines are indented, then the error begins; it may have several lines.
    start = next((i for i, line in enumerate(lines) if line and not line.startswith(' ')), None)
    if start is None:
        return None
    kind, _, message = ' '.join(' '.join(lines[start:]).split()).partition(': ')
    return kind.split('.')[-1], message


def _known(error: BaseException, text: str) -> str | None:
    """What to say about errors of the machine, whose own text says nothing to a user."""
    # Also where it died with a batch half sent.
    half_sent = isinstance(error, EOFError | ConnectionError) and any(
        frame.filename.endswith('utils/data/dataloader.py') for frame in traceback.extract_tb(error.__traceback__)
    )
    if half_sent:
        text = 'A DataLoader worker exited unexpectedly. '
    if 'DataLoader worker' in text and ('killed by signal' in text or 'exited unexpectedly' in text):
        memory = (
            'shared memory is full: enlarge /dev/shm (docker run --shm-size=8g)'
            if 'Bus error' in text
            else 'probably the machine is out of memory'
        )
        return (
            f'{text.split(". ")[0]}: {memory}, or use fewer workers (train_dataloader.num_workers) or smaller batches'
        )
    if isinstance(error, torch.OutOfMemoryError):
        return f'out of memory of the GPU: a smaller train_dataloader.batch_size needs less ({text.split(". ")[0]})'
    if _PEER.search(text) and os.environ.get('WORLD_SIZE', '1') != '1':
        return f'another process of this run ended first, its own error line says why ({text[:120]})'
    return None


def explain(error: BaseException, cfg: Config | None = None) -> str:
    """Say in one line what an error means for the user.

    Args:
        error (BaseException): What was raised.
        cfg (Config, optional): The config of the run, to name the file, the part of it that the error comes from, and
            the field behind a missing file.
    """
    # They need UserError.
    from .blame import blame, suspects
    from .config_check import near_type

    if isinstance(error, (FileNotFoundError, NotADirectoryError)) and cfg is not None:
        missing = missing_data(cfg)
        if missing is not None:
            return missing
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    kind = type(error).__name__
    worker = _of_worker(text)
    if worker is not None:
        kind, text = worker
    # mmengine before 0.10.8 puts 'class `X` in FILE: ' before the text, once for each part around.
    text = re.sub(r'^(class `\w+` in \S+: )+', '', ' '.join(text.split()))
    # A process that torch started sends the name of the class only.
    if isinstance(error, UserError) or kind in (part.__name__ for part in (UserError, *UserError.__subclasses__())):
        return text
    known = _known(error, text)
    if known is not None:
        return known
    if not text:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f'{frame.line} ({frame.filename}:{frame.lineno})'
    # mmpretrain's, of a part of ImageNet.
    if kind == 'AssertionError' and text.startswith('The number of subfolders'):
        text += ' With --data DIR the classes are the folders that are there'
    if cfg is None:
        return f'{kind}: {text}'
    where = f'{cfg.filename}: ' if cfg.filename else ''
    unknown = re.match(r'(\S+) is not in the (\S+::.+?) registry', text)
    if unknown is not None:
        key = blame(error, cfg).replace(': ', '.')
        return f'{where}{key}type: {unknown[1]!r} is not in the {unknown[2]} registry{near_type(unknown[1])}'
    return f'{where}{blame(error, cfg)}{kind}: {text}{suspects(error, cfg)}'


@contextmanager
def one_line_errors(cfg: Config | None = None, show_traceback: bool = False) -> Iterator[None]:
    """End the program with status 1 and one ``error: ...`` line when the body raises, with 130 on Ctrl-C.

    Args:
        cfg (Config, optional): The config of the run, for the message.
        show_traceback (bool): Keep the traceback, for code in which an error is as likely a bug as a mistake of the
            user: in a file of ``cfg.work_dir`` that the line names, without one before the line. :class:`UserError`
            has none. The variable ``MMMAP_TRACEBACK=1`` prints the traceback of every error.
    """
    try:
        yield
    except KeyboardInterrupt:
        print('error: interrupted', file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        try:
            _end(error, cfg, show_traceback)
        # Where a data-loader worker has died, torch says so by a signal, at any moment: here, before it is ignored.
        except RuntimeError as death:
            _end(death, cfg, show_traceback)


def _end(error: Exception, cfg: Config | None, keep_traceback: bool) -> None:
    """Print the line of an error and end the program with status 1."""
    # In another thread, and where there is no such signal, nothing interrupts.
    with suppress(ValueError, AttributeError):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    line = explain(error, cfg)
    if os.environ.get(TRACEBACK_VARIABLE, '0') != '0':
        traceback.print_exception(error)
    elif keep_traceback and not isinstance(error, UserError):
        line += _keep_traceback(cfg)
    rank = os.environ.get('RANK', '0')
    label = 'error' if rank == '0' else f'error (rank {rank})'
    print(f'{label}: {line}', file=sys.stderr, flush=True)
    sys.exit(1)


def _keep_traceback(cfg: Config | None) -> str:
    """Write the traceback of the current error to the work directory, or print it; returns what to say of it."""
    try:
        path = Path(cfg.work_dir, f'traceback_rank{os.environ.get("RANK", "0")}.txt')
        path.write_text(traceback.format_exc())
        return f' (traceback: {path})'
    # No work directory, or a full disk.
    except (AttributeError, TypeError, OSError):
        traceback.print_exc()
        return ''
