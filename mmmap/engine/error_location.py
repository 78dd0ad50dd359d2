"""Finds the part of a config that an error comes from."""

import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

from .config_parts import dotted, find_class, walk
from .type_hints import wrong_arguments

# A frame of a traceback in text form. Data loader workers send such text.
_FRAME = re.compile(r'^ *File "(.+)", line (\d+), in (\S+)', re.MULTILINE)


def linked_errors(error: BaseException) -> Iterator[BaseException]:
    """An error, then its cause or context, and so on."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _name(kind: Any) -> str:
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _find(cfg: dict, path: tuple, part: dict | None, kind: str) -> tuple | None:
    """The path of the dict at or below ``path`` of a config that is most similar to ``part`` and has the type ``kind``.

    mmengine copies and completes parts of a config, so that identity does not help.
    """
    for step in path:
        cfg = cfg[step]
    best, found = -1, None
    for below, value in walk(cfg):
        if not isinstance(value, dict):
            continue
        named = _name(value.get('type'))
        alike = sum(key in value and value[key] == part[key] for key in part if key != 'type') if part else 0
        # mmengine may also have added the type.
        if alike + (named == kind != '') > best and (named == kind or not named) and (named or alike):
            best, found = alike + (named == kind != ''), (*path, *below)
    return found


def _wanted(frames: Iterator) -> Iterator[tuple[dict | None, str]]:
    """For the frames of a traceback: the dict that is being built and its type, or None and the type of ``self``."""
    for frame in frames:
        values = frame.f_locals
        if frame.f_code.co_name.startswith('build'):
            part = next((values[name] for name in ('cfg', 'dataloader') if isinstance(values.get(name), dict)), None)
            if part is not None and not isinstance(part, Config):
                yield part, _name(part.get('type'))
        elif 'self' in values:
            yield None, type(values['self']).__name__


def _from_text(cfg: dict, text: str) -> tuple | None:
    """The path of the part whose class has the innermost frame of a traceback in text form."""
    parts = [
        (path, kind)
        for path, value in walk(cfg)
        if isinstance(value, dict) and 'dataloader' in '.'.join(map(str, path)) and (kind := find_class(value, path))
    ]
    for file, line, name in reversed(_FRAME.findall(text)):
        found = {path: kind for path, kind in parts if _code_has_line(kind, name, file, int(line))}
        # If several classes inherit the method, none of them is named.
        if len(set(found.values())) == 1:
            return next(iter(found))
    return None


def _code_has_line(kind: Callable, name: str, file: str, line: int) -> bool:
    function = getattr(kind, name, None) if inspect.isclass(kind) else kind
    code = getattr(function and inspect.unwrap(function), '__code__', None)
    if code is None or code.co_name != name or code.co_filename != file:
        return False
    return code.co_firstlineno <= line <= max(last for *_, last in code.co_lines() if last is not None)


def find_part(error: BaseException, cfg: Config) -> tuple[tuple, str]:
    """Find the part of a config that was being built, or whose object was running, when an error was raised.

    Returns the path (keys and indices, empty if not known) and the type of the innermost such part.
    """
    whole = cfg._cfg_dict
    path: tuple = ()
    type_ = ''
    for link in linked_errors(error):
        for part, kind in _wanted(frame for frame, _ in traceback.walk_tb(link.__traceback__)):
            if part is None and not kind:
                continue
            # Search in the part found before first, as for a backbone in its model.
            found = _find(whole, path, part, kind) or (_find(whole, (), part, kind) if path else None)
            path, type_ = (found, kind) if found else (path, type_)
        if 'Original Traceback' in str(link):
            found = _from_text(whole, str(link))
            path, type_ = (found, '') if found else (path, type_)
    return path, type_


def error_key(error: BaseException, cfg: Config) -> str:
    """The dotted key of the part of a config that an error comes from, with a colon; '' if it is not known."""
    try:
        path, _ = find_part(error, cfg)
        return f'{dotted(path)}: ' if path else ''
    # The message is more important than its prefix.
    except Exception:
        return ''


def doubtful_arguments(error: BaseException, cfg: Config) -> str:
    """The arguments of that part that do not fit their type hints, in brackets; '' if there are none.

    The hints of other packages are not exact. So they are only checked after an error.
    """
    try:
        (path, type_), value = find_part(error, cfg), cfg._cfg_dict
        for step in path:
            value = value[step]
        kind = find_class({'type': type_, **value}, path)
        wrong = [f'{dotted((*path, name))}: {text}' for name, text in wrong_arguments(value, kind)] if kind else []
        return f' ({"; ".join(wrong)})' if wrong else ''
    except Exception:
        return ''
