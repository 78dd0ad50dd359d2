"""Makes mmengine and DeepSpeed load files by :mod:`mmmap.utils.safe_load`.

mmengine's schemes (local, http, s3, torchvision, ...) call ``torch.load``, ``load_url`` or ``_safe_torch_load``, by
release; the last one runs code that it could not load safely. So these names are replaced in its module of loaders.
"""

import contextvars
import importlib
import sys
import types
from functools import wraps
from typing import Any

import torch
from mmengine import fileio, runner
from mmengine.fileio.handlers import PickleHandler
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader, checkpoint

from . import safe_load
from .checkpoint_content import check_content
from .checkpoint_fit import counted
from .errors import RefusedFileError

# The requested file, while a scheme of mmengine downloads or finds it.
_ASKED: contextvars.ContextVar[str | None] = contextvars.ContextVar('asked', default=None)
# The last file that was loaded.
_LOADED: contextvars.ContextVar[str | None] = contextvars.ContextVar('loaded', default=None)


class _TorchThatLoadsSafely(types.ModuleType):
    """All of torch, with another ``load``."""

    def __init__(self) -> None:
        super().__init__('torch')

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def load(self, f: Any, map_location: Any = None, *_args: Any, **kwargs: Any) -> Any:
        """Stand in for :func:`torch.load`."""
        kwargs = {key: value for key, value in kwargs.items() if key == 'mmap'}
        return safe_load.load(f, map_location, name=_ASKED.get(), **kwargs)


class _TorchThatChecks(_TorchThatLoadsSafely):
    """The same for DeepSpeed, with a check of the content, as it uses no scheme of mmengine."""

    def load(self, f: Any, *args: Any, **kwargs: Any) -> Any:
        """Stand in for :func:`torch.load`."""
        content = super().load(f, *args, **kwargs)
        return content if safe_load.is_trusted(f) else check_content(content, str(f))


def _load_url(url: str, model_dir: str | None = None, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
    """Replace ``torch.hub.load_state_dict_from_url``, which unpickles everything."""
    with safe_load.allowing(_ASKED.get() or url) as options:
        return torch.hub.load_state_dict_from_url(url, model_dir, map_location, *args, **{**kwargs, **options})


def _check_all_schemes() -> None:
    original = CheckpointLoader.load_checkpoint.__func__

    @wraps(original)
    def load_checkpoint(cls: type, filename: str, map_location: Any = None, logger: Any = 'current') -> dict:
        name = str(filename)
        token = _ASKED.set(name)
        try:
            content = original(cls, name, map_location, logger)
        finally:
            _ASKED.reset(token)
        _LOADED.set(name)
        return content if safe_load.is_trusted(name) else check_content(content, name)

    CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)


def _refuse_configs_of_checkpoints() -> None:
    original = BaseInferencer._init_model

    @wraps(original)
    def _init_model(self: BaseInferencer, cfg: Any, weights: str | None, device: str = 'cpu') -> Any:
        # mmengine would run the config of the checkpoint.
        if not cfg and weights is not None and not safe_load.is_trusted(weights):
            raise RefusedFileError(
                f'{weights} stores its config as Python code, which is not run: name the config (model=CONFIG_FILE). '
                f'If you trust the file: {safe_load.TRUST_VARIABLE}={weights}'
            )
        return original(self, cfg, weights, device)

    BaseInferencer._init_model = _init_model


class SafePickleHandler(PickleHandler):
    """mmengine's handler of ``.pkl`` files, for :func:`mmengine.load`: annotations, predictions, results."""

    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        """:func:`~mmmap.utils.safe_load.unpickle` an open file; arguments of :func:`pickle.load` are ignored."""
        # mmengine.load gives bytes; the name of their file, for messages, is in its frame.
        named = sys._getframe(1).f_locals.get('file')
        return safe_load.unpickle(file, name=named if isinstance(named, str) else getattr(file, 'name', None))


def install() -> bool:
    """Replace the loading of mmengine, and of DeepSpeed if it is imported; False if an earlier call did so."""
    if isinstance(checkpoint.torch, _TorchThatLoadsSafely):
        return False
    checkpoint.torch = _TorchThatLoadsSafely()
    checkpoint._safe_torch_load = checkpoint.torch.load
    checkpoint.load_url = _load_url
    checkpoint.load_state_dict = runner.load_state_dict = counted(checkpoint.load_state_dict, _LOADED.get)
    _check_all_schemes()
    _refuse_configs_of_checkpoints()
    fileio.register_handler(['pickle', 'pkl'])(SafePickleHandler)
    if 'deepspeed' in sys.modules:
        engine: Any = importlib.import_module('deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine')
        engine.torch = _TorchThatChecks()
    return True
