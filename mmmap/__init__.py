"""Hybrid Mamba-Transformer vision backbones and their Masked Autoregressive Pretraining (MAP).

All components register as soon as mmmap and one of mmengine, mmcv and mmpretrain are imported, or any part of mmmap
that needs mmengine. Until then ``import mmmap`` and ``import mmmap.ops`` load nothing else.
"""

import importlib
import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from .version import __version__, version_info

_REGISTERING = ('datasets', 'engine', 'evaluation', 'models', 'released', 'structures', 'visualization')
# Parts that need neither mmengine nor what stands on it; of `ops`, all that is in it.
_ALONE = (
    'mmmap.command_line',
    'mmmap.ops',
    'mmmap.utils',
    'mmmap.utils.errors',
    'mmmap.utils.versions',
    'mmmap.version',
)

# The packages that components stand on, whose import is the sign to register.
_BASES = ('mmengine', 'mmcv', 'mmpretrain')

__all__ = ['__version__', *_REGISTERING, 'version_info']


def _prepare(with_mmpretrain: bool = True) -> None:
    """Check the versions of required packages, and mend what would keep them from being imported."""
    from .utils import versions

    versions.check_installed()
    for name in ('torch', 'mmengine', 'mmcv'):
        versions.check_version(name)
    from .utils import compat

    # Before mmpretrain (and with it torchvision) is imported for the first time.
    compat.apply()
    if with_mmpretrain:
        versions.check_version('mmpretrain')


def _register() -> None:
    _prepare()
    for name in _REGISTERING:
        importlib.import_module(f'mmmap.{name}')


class _RegisterOnImport(MetaPathFinder):
    """Registers all components once the first module that needs them has been imported."""

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        own = name.startswith('mmmap.') and name not in _ALONE and not name.startswith('mmmap.ops.')
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
                # Those of utils import nothing that has to be mended, and do the mending.
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
    """Whether the required packages are there: without them `ops` is of use, also to those who have mmengine."""
    from .utils import versions

    try:
        versions.check_installed()
    except ImportError:
        return False
    return True


def __getattr__(name: str) -> ModuleType:
    if name in _REGISTERING:
        return importlib.import_module(f'mmmap.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


if sys.modules.get('mmengine') is not None and _can_register():
    _register()
else:
    sys.meta_path.insert(0, _RegisterOnImport())
