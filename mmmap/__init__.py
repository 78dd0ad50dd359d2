"""Hybrid Mamba-Transformer vision backbones and their Masked Autoregressive Pretraining (MAP).

All components register once mmmap and one of mmengine, mmcv and mmpretrain are imported, or a part of mmmap that needs
mmengine. Until then ``import mmmap`` and ``import mmmap.ops`` load nothing else.
"""

import importlib
import importlib.util
import pkgutil
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .version import __version__, version_info

# All packages inside but those that register nothing.
_REGISTERING = [
    module.name
    for module in pkgutil.iter_modules(__path__)
    if module.ispkg and module.name not in ('analysis', 'apis', 'commands', 'ops', 'utils')
]
# Parts that do not need mmengine, beside all of `ops` and `commands`.
_ALONE = {
    f'mmmap.{name}'
    for name in ('__main__', 'command_line', 'ops', 'utils', 'utils.errors', 'utils.versions', 'version')
}
# What is looked up here and loaded when it is asked for.
_FROM_APIS = ('create_model', 'list_models')
# Components register when one of these is imported.
_BASES = ('mmengine', 'mmcv', 'mmpretrain')

__all__ = ['__version__', *_FROM_APIS, *_REGISTERING, 'version_info']


def _prepare(with_mmpretrain: bool = True) -> None:
    """Check the versions of required packages, and repair what would prevent their import."""
    from .utils import versions

    versions.check_installed()
    for name in ('torch', 'mmengine', 'mmcv'):
        versions.check_version(name)
    from .utils import compat

    # Before mmpretrain imports torchvision.
    compat.apply()
    if with_mmpretrain:
        versions.check_version('mmpretrain')


def _register() -> None:
    _prepare()
    for name in _REGISTERING:
        importlib.import_module(f'mmmap.{name}')
    from .utils.packaged_configs import name_packaged_configs

    name_packaged_configs()


class _RegisterOnImport(MetaPathFinder):
    """Registers all components when the first module that needs them is imported."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        own = name.startswith('mmmap.') and name not in _ALONE and not name.startswith(('mmmap.ops.', 'mmmap.commands'))
        if not own and name not in _BASES:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None or not (own or _can_register()):
            sys.meta_path.insert(0, self)
            return spec
        loader, execute = spec.loader, spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module
            try:
                # The modules of utils do the repairs.
                if own and not name.startswith('mmmap.utils.'):
                    _prepare()
                elif name == 'mmpretrain':
                    _prepare(with_mmpretrain=False)
                execute(module)
                _register()
            except BaseException:
                sys.meta_path.insert(0, self)
                raise

        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _can_register() -> bool:
    """Whether the required packages are installed. Without them, `ops` still works beside mmengine."""
    from .utils import versions

    try:
        versions.check_installed()
    except ImportError:
        return False
    return True


def __getattr__(name: str) -> Any:
    if name in _REGISTERING:
        return importlib.import_module(f'mmmap.{name}')
    if name in _FROM_APIS:
        return getattr(importlib.import_module('mmmap.apis.create_model'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if sys.modules.get('mmengine') is not None and _can_register():
    _register()
else:
    sys.meta_path.insert(0, _RegisterOnImport())
