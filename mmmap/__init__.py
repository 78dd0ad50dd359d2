"""Hybrid Mamba-Transformer vision backbones and their Masked Autoregressive Pretraining (MAP)."""

from .utils import versions

versions.check_installed()
versions.check_version('torch')
versions.check_version('mmengine')
versions.check_version('mmcv')

from .utils import compat  # noqa: E402

# Before mmpretrain (and with it torchvision) is imported for the first time.
compat.apply()
versions.check_version('mmpretrain')

# Importing these registers everything they hold.
from . import datasets, engine, evaluation, models, structures, visualization  # noqa: E402
from .version import __version__, version_info  # noqa: E402

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models', 'structures', 'version_info', 'visualization']
