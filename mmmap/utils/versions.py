"""Checks of the required packages and their versions."""

import importlib
import importlib.util

# By import name: lowest version, first version not allowed, what to install. Original packages serve as well as the
# maintained forks, which share their import names.
REQUIREMENTS: dict[str, tuple[str, str | None, str]] = {
    'torch': ('2.6.0', None, 'torch'),
    'mmengine': ('0.10.7', '1.0.0', 'onedl-mmengine'),
    'mmcv': ('2.1.0', '3.0.0', 'onedl-mmcv'),
    'mmpretrain': ('1.2.0', '2.0.0', 'onedl-mmpretrain'),
}

# What segmentation and detection configs need: what to install, by import name.
TASK_LIBRARIES = {'mmseg': 'onedl-mmsegmentation', 'mmdet': 'onedl-mmdetection'}


def check_installed() -> None:
    """Raise an ImportError, with the command that installs it, if a required package cannot be found."""
    for module, (_, _, distribution) in REQUIREMENTS.items():
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'mmmap needs {module}, which is not installed: run `pip install {distribution}`.')


def check_version(module: str) -> None:
    """Raise an ImportError if a package, a key of ``REQUIREMENTS``, has another version than the supported ones."""
    # torch alone does not install it.
    from packaging.version import Version

    lowest, limit, distribution = REQUIREMENTS[module]
    found = importlib.import_module(module).__version__
    wanted = f'>={lowest}' + (f',<{limit}' if limit else '')
    if Version(found) < Version(lowest) or (limit is not None and Version(found) >= Version(limit)):
        raise ImportError(f"mmmap needs {module}{wanted}, found {found}: run `pip install '{distribution}{wanted}'`.")


def check_task_library(module: str) -> None:
    """Raise an ImportError if mmseg or mmdet, or mmcv's compiled operators for them, cannot be imported."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f'{module} is not installed: run `pip install {TASK_LIBRARIES[module]}`')
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            f'{module} needs mmcv with its compiled operators, which this one lacks ({error}): run `pip install '
            f'--no-cache-dir --no-build-isolation --no-deps --force-reinstall {REQUIREMENTS["mmcv"][2]}`'
        ) from error
    try:
        importlib.import_module(module)
    except Exception as error:
        # The original packages assert on mmcv's version.
        raise ImportError(f'{module} cannot be imported: {" ".join(str(error).split())}') from error
