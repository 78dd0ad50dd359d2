"""A base class of hooks for pictures, curves and measurements. Their errors never end a training."""

import functools
import logging
from collections.abc import Callable
from typing import Any

from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..error_report import explain


def never_raise(function: Callable, name: str) -> Callable:
    """Wrap a function so that it logs errors under a name, each error once, and returns None instead of raising."""
    told: set[str] = set()

    @functools.wraps(function)
    def caught(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            log_once(name, explain(error), told)
            return None

    return caught


def log_once(name: str, reason: str, told: set[str]) -> None:
    """Log in one line why a side product failed, unless the reason is in ``told``, to which it is added."""
    if reason not in told:
        told.add(reason)
        # All ranks but the first log only errors.
        level = logging.ERROR if get_rank() else logging.WARNING
        print_log(f'{name} failed; the run continues, and it is tried again when due: {reason}', 'current', level)


class SideProductHook(Hook):
    """Base class of hooks whose errors are logged once and do not end a training.

    Subclasses do their work in :meth:`attempt`. They run last, after the checkpoint of the same epoch, so that even an
    error that cannot be caught does not lose it.
    """

    # After CheckpointHook, whose priority is VERY_LOW.
    priority = 'LOWEST'

    def attempt(self, function: Callable, *args: Any) -> Any:
        """Call a function and return its result. An error is logged, each once, and the result is None then.

        The function must not wait for other processes.
        """
        try:
            return function(*args)
        except Exception as error:
            self._tell(explain(error))
            return None

    def attempt_together(self, function: Callable, *args: Any) -> Any:
        """:meth:`attempt` for all processes at once. After an error on any of them the result is None on all.

        So the code after it may wait for other processes. The function itself must not wait.
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
        log_once(type(self).__name__, reason, self._told)


# Ends of the names of hooks in other packages that make side products.
_SIDE_PRODUCTS = ('VisualizationHook', 'VisHook', 'ProfilerHook')
_WRITES = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close')


def protect_side_products(runner: Runner) -> None:
    """Make drawing hooks of other packages and the backends of the visualizer log their errors."""
    for hook in runner.hooks:
        name = type(hook).__name__
        if name.endswith(_SIDE_PRODUCTS) and not isinstance(hook, SideProductHook):
            for stage in Hook.stages:
                method = getattr(hook, stage)
                setattr(hook, stage, never_raise(method, name))
    # The visualizer has no public list of its backends.
    for backend in getattr(runner.visualizer, '_vis_backends', {}).values():
        for write in _WRITES:
            setattr(backend, write, never_raise(getattr(backend, write), f'{type(backend).__name__}.{write}'))
