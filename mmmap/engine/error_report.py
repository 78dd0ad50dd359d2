"""Reports the errors of the tools: one last line that says what was wrong and where."""

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
from .config_datasets import reads_images
from .config_parts import DATALOADERS, did_you_mean_type
from .error_location import doubtful_arguments, error_key

# Set to anything but 0 to see the traceback of every error.
TRACEBACK_VARIABLE = 'MMMAP_TRACEBACK'
#: Exit status after Ctrl-C, as a shell has it: 128 + SIGINT.
INTERRUPTED = 130
_TRACEBACK = 'Traceback (most recent call last):'
# Words of gloo, nccl and torch's store when another process has ended.
_PEER = re.compile(
    r'Connection (closed|reset|refused) by peer|Broken pipe|remote process exited|NCCL|Gloo|gloo|TCPStore'
)


def _data_paths(dataset: dict, field: str) -> Iterator[tuple[str, str]]:
    """Yield the fields and paths of a data set config, and of those inside it."""
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
    """Name the first path of the data sets in a config that does not exist, with its field; None if all exist."""
    for loader in DATALOADERS:
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
    """A hint at ``--data`` if the data set is one of images, else ''."""
    root = dataset.get('data_root') or ''
    if not reads_images(dataset, cfg.get('default_scope')):
        return ''
    return f'; images of your own are read with --data {root if os.path.isdir(root) else "DIR"}'


def _error_in_traceback(text: str) -> tuple[str, str] | None:
    """Class and message of the error at the end of a traceback in text form; None if the text has no traceback.

    Data loader workers and processes that torch started send their errors in this form.
    """
    if _TRACEBACK not in text:
        return None
    lines = text[text.rindex(_TRACEBACK) :].splitlines()[1:]
    # Frames and source lines are indented. The error starts after them and may have several lines.
    start = next((i for i, line in enumerate(lines) if line and not line.startswith(' ')), None)
    if start is None:
        return None
    kind, _, message = ' '.join(' '.join(lines[start:]).split()).partition(': ')
    return kind.split('.')[-1], message


def _known(error: BaseException, text: str) -> str | None:
    """A clear text for errors of the machine; None for other errors."""
    # A worker may also die while it sends a batch.
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
    """Explain an error to the user in one line.

    Args:
        error (BaseException): The error.
        cfg (Config, optional): The config of the run. With it the line names the config file, the part that the error
            comes from, and the field of a missing file.
    """
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) and cfg is not None:
        missing = missing_data(cfg)
        if missing is not None:
            return missing
    # str() of a KeyError is the repr of its message.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    kind = type(error).__name__
    worker = _error_in_traceback(text)
    if worker is not None:
        kind, text = worker
    # mmengine before 0.10.8 puts 'class `X` in FILE: ' before the text, once for each outer part.
    text = re.sub(r'^(class `\w+` in \S+: )+', '', ' '.join(text.split()))
    # A process that torch started sends only the name of the class.
    if isinstance(error, UserError) or kind in {'UserError', *(part.__name__ for part in UserError.__subclasses__())}:
        return text
    known = _known(error, text)
    if known is not None:
        return known
    if not text:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f'{frame.line} ({frame.filename}:{frame.lineno})'
    # mmpretrain raises this for a subset of ImageNet.
    if kind == 'AssertionError' and text.startswith('The number of subfolders'):
        text += ' With --data DIR each folder is a class'
    if cfg is None:
        return f'{kind}: {text}'
    where = f'{cfg.filename}: ' if cfg.filename else ''
    unknown = re.match(r'(\S+) is not in the (\S+::.+?) registry', text)
    if unknown is not None:
        key = error_key(error, cfg).replace(': ', '.')
        return f'{where}{key}type: {unknown[1]!r} is not in the {unknown[2]} registry{did_you_mean_type(unknown[1])}'
    return f'{where}{error_key(error, cfg)}{kind}: {text}{doubtful_arguments(error, cfg)}'


@contextmanager
def one_line_errors(cfg: Config | None = None, show_traceback: bool = False) -> Iterator[None]:
    """End the program with status 1 and one ``error: ...`` line if the body raises, and with status 130 on Ctrl-C.

    Args:
        cfg (Config, optional): The config of the run, for the message.
        show_traceback (bool): Keep the traceback, for code in which an error may be a bug. It goes to a file in
            ``cfg.work_dir`` that the line names, or is printed if there is no such folder. A :class:`UserError` never
            has one. The variable ``MMMAP_TRACEBACK=1`` prints the traceback of every error.
    """
    try:
        yield
    except KeyboardInterrupt:
        print('error: interrupted', file=sys.stderr, flush=True)
        sys.exit(INTERRUPTED)
    except Exception as error:
        try:
            _end(error, cfg, show_traceback)
        # torch reports the death of a data loader worker by a signal, which may come before _end() ignores it.
        except RuntimeError as death:
            _end(death, cfg, show_traceback)


def _end(error: Exception, cfg: Config | None, keep_traceback: bool) -> None:
    """Print the line of an error and end the program with status 1."""
    # Another thread cannot set handlers, and some systems have no such signal.
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
    """Write the traceback of the current error to the work directory, or print it; returns a note for the line."""
    try:
        path = Path((cfg or Config()).work_dir, f'traceback_rank{os.environ.get("RANK", "0")}.txt')
        path.write_text(traceback.format_exc())
        return f' (traceback: {path})'
    # There is no work directory, or the disk is full.
    except (AttributeError, TypeError, OSError):
        traceback.print_exc()
        return ''
