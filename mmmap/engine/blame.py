"""Finds the part of a config that an error comes from."""

import inspect
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config

from .annotations import wrong_arguments
from .config_check import dotted, find_class, walk

# A frame of a traceback that is text, as workers of a data loader send it.
_FRAME = re.compile(r'^ *File "(.+)", line (\d+), in (\S+)', re.MULTILINE)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error, then what it was raised from or while handling, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _name(kind: Any) -> str:
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _find(cfg: dict, path: tuple, part: dict | None, kind: str) -> tuple | None:
    """Where in the part of a config at ``path`` a dict stands, most alike to ``part`` and of a type's name.

    mmengine copies and completes configs on the way, so that it is not the same object.
    """
    for step in path:
        cfg = cfg[step]
    best, found = -1, None
    for below, value in walk(cfg):
        if not isinstance(value, dict):
            continue
        named = _name(value.get('type'))
        alike = sum(key in value and value[key] == part[key] for key in part if key != 'type') if part else 0
        # A type may have been added on the way, too.
        if alike + (named == kind != '') > best and (named == kind or not named) and (named or alike):
            best, found = alike + (named == kind != ''), (*path, *below)
    return found


def _wanted(frames: Iterator) -> Iterator[tuple[dict | None, str]]:
    """What the frames of a traceback build from a config or belong to: the dict if there is one, and the type."""
    for frame in frames:
        values = frame.f_locals
        if frame.f_code.co_name.startswith('build'):
            part = next((values[name] for name in ('cfg', 'dataloader') if isinstance(values.get(name), dict)), None)
            if part is not None and not isinstance(part, Config):
                yield part, _name(part.get('type'))
        elif 'self' in values:
            yield None, type(values['self']).__name__


def _from_text(cfg: dict, text: str) -> tuple | None:
    """The part whose class has the innermost frame of a traceback that is text."""
    parts = [
        (path, kind)
        for path, value in walk(cfg)
        if isinstance(value, dict) and 'dataloader' in '.'.join(map(str, path)) and (kind := find_class(value, path))
    ]
    for file, line, name in reversed(_FRAME.findall(text)):
        found = {path: kind for path, kind in parts if _has_line(kind, name, file, int(line))}
        # A method that several classes inherit does not tell which of them.
        if len(set(found.values())) == 1:
            return next(iter(found))
    return None


def _has_line(kind: Callable, name: str, file: str, line: int) -> bool:
    function = inspect.unwrap(getattr(kind, name, None)) if inspect.isclass(kind) else inspect.unwrap(kind)
    code = getattr(function, '__code__', None)
    if code is None or code.co_name != name or code.co_filename != file:
        return False
    return code.co_firstlineno <= line <= max(last for *_, last in code.co_lines() if last is not None)


def find_part(error: BaseException, cfg: Config) -> tuple[tuple, str]:
    """Find the part of a config that was being built, or whose object was at work, when an error was raised.

    Args:
        error (BaseException): What was raised.
        cfg (Config): The config of the run.

    Returns:
        tuple[tuple, str]: Keys and indices that lead to the innermost such part, none if it is not known, and its type.
    """
    whole, path, type_ = cfg._cfg_dict, (), ''
    for link in chain(error):
        for part, kind in _wanted(frame for frame, _ in traceback.walk_tb(link.__traceback__)):
            if part is None and not kind:
                continue
            # Below the one before where it can be, as a backbone in its model.
            found = _find(whole, path, part, kind) or (_find(whole, (), part, kind) if path else None)
            path, type_ = (found, kind) if found else (path, type_)
        if 'Original Traceback' in str(link):
            found = _from_text(whole, str(link))
            path, type_ = (found, '') if found else (path, type_)
    return path, type_


def blame(error: BaseException, cfg: Config) -> str:
    """The dotted key of the part of a config that an error comes from, with a colon; '' if it is not known."""
    try:
        path, _ = find_part(error, cfg)
        return f'{dotted(path)}: ' if path else ''
    # A message must not be lost over its ornament.
    except Exception:
        return ''


def suspects(error: BaseException, cfg: Config) -> str:
    """Arguments of that part whose values do not fit their type hints, in brackets; '' if there are none.

    The hints of other packages are not exact, so that these are only told where there is an error anyway.
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
