"""Checks that the packages mmmap stands on are there and of a version that works."""

import importlib
import importlib.util

from packaging.version import Version

# Import name -> (lowest version, first version not allowed, what to install). Original packages and maintained forks
# share import names, so both satisfy these.
REQUIREMENTS: dict[str, tuple[str, str | None, str]] = {
    'torch': ('2.6.0', None, 'torch'),
    'mmengine': ('0.10.7', '1.0.0', 'onedl-mmengine'),
    'mmcv': ('2.1.0', '3.0.0', 'onedl-mmcv'),
    'mmpretrain': ('1.2.0', '2.0.0', 'onedl-mmpretrain'),
}


def check_installed() -> None:
    """Check that every required package can be found, without importing any.

    Raises:
        ImportError: If one is missing; one line that names it and the command that installs it.
    """
    for module, (_, _, distribution) in REQUIREMENTS.items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'mmmap needs {module}, which is not installed: run `pip install {distribution}`.')


def check_version(module: str) -> None:
    """Check the version of one required package.

    Args:
        module (str): Its import name, a key of ``REQUIREMENTS``.

    Raises:
        ImportError: If the version is outside the supported range; one line with the range and a command.
    """
    lowest, limit, distribution = REQUIREMENTS[module]
    found = importlib.import_module(module).__version__
    wanted = f'>={lowest}' + (f',<{limit}' if limit else '')
    if Version(found) < Version(lowest) or (limit is not None and Version(found) >= Version(limit)):
        raise ImportError(f"mmmap needs {module}{wanted}, found {found}: run `pip install '{distribution}{wanted}'`.")
