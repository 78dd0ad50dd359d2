"""Pictures, curves and measurements beside a training, which must never end it."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..errors import explain


def never_raise(function: Callable, name: str) -> Callable:
    """Catch what a function raises and log the reason in one line, each reason once.

    Args:
        function (Callable): Makes a side product.
        name (str): What to call it in the log.

    Returns:
        Callable: The same, but returns None where the function raises.
    """
    told: set[str] = set()

    @functools.wraps(function)
    def caught(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            tell(name, explain(error), told)
            return None

    return caught


def tell(name: str, reason: str, told: set[str]) -> None:
    """Log why a side product failed, unless this reason was logged before.

    Args:
        name (str): What failed.
        reason (str): One line.
        told (set[str]): The reasons so far; gets this one.
    """
    if reason not in told:
        told.add(reason)
        # The logs of other ranks than the first show errors only.
        level = logging.ERROR if get_rank() else logging.WARNING
        print_log(f'{name} failed; the run goes on, and it is tried again when due: {reason}', 'current', level)


class SideProductHook(Hook):
    """Base class of hooks whose work is no part of a training: an error in it is logged once and ends nothing.

    Subclasses do that work through :meth:`attempt`. They come last, after the checkpoint of the same epoch, so that not
    even an error that cannot be caught costs it.
    """

    # After CheckpointHook, which is VERY_LOW.
    priority = 'LOWEST'

    def attempt(self, function: Callable, *args: Any) -> Any:
        """Call a function; what it raises is logged, each reason once.

        Args:
            function (Callable): Makes the side product; must not wait for other processes.
            *args: Its arguments.

        Returns:
            Any: What the function returns; None after an error.
        """
        try:
            return function(*args)
        except Exception as error:
            self._tell(explain(error))
            return None

    def attempt_together(self, function: Callable, *args: Any) -> Any:
        """As :meth:`attempt`, called by all processes, each of which learns whether it went well on all of them.

        What follows may wait for other processes, as none of them gives up alone.

        Args:
            function (Callable): Does a process's share; must not wait for other processes.
            *args: Its arguments.

        Returns:
            Any: What the function returns; None on all processes after an error on any.
        """
        result, reason = None, None
        try:
            result = function(*args)
        except Exception as error:
            reason = f'rank {get_rank()}: {explain(error)}'
        reasons = [other for other in all_gather_object(reason) if other is not None]
        if not reasons:
            return result
        self._tell(reasons[0])
        return None

    def _tell(self, reason: str) -> None:
        if not hasattr(self, '_told'):
            self._told: set[str] = set()
        tell(type(self).__name__, reason, self._told)


# Hooks of other packages whose work is a side product, by the end of their names.
_SIDE_PRODUCTS = ('VisualizationHook', 'VisHook', 'ProfilerHook')
_WRITES = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


def protect_side_products(runner: Runner) -> None:
    """Let no picture and no curve end a run: hooks of other packages that draw, and what the visualizer writes to.

    Args:
        runner (Runner): The runner; its hooks are registered.
    """
    for hook in runner.hooks:
        name = type(hook).__name__
        if name.endswith(_SIDE_PRODUCTS) and not isinstance(hook, SideProductHook):
            for stage in Hook.stages:
                method = getattr(hook, stage)
                setattr(hook, stage, never_raise(method, name))
    # The visualizer has no public list of them.
    for backend in getattr(runner.visualizer, '_vis_backends', {}).values():
        for write in _WRITES:
            setattr(backend, write, never_raise(getattr(backend, write), f'{type(backend).__name__}.{write}'))
