"""Checks that the packages mmmap stands on are there and of a version that works."""

import importlib
import importlib.util

# Import name -> (lowest version, first version not allowed, what to install). Original packages and maintained forks
# share import names, so both satisfy these.
REQUIREMENTS: dict[str, tuple[str, str | None, str]] = {
    'torch': ('2.6.0', None, 'torch'),
    'mmengine': ('0.10.7', '1.0.0', 'onedl-mmengine'),
    'mmcv': ('2.1.0', '3.0.0', 'onedl-mmcv'),
    'mmpretrain': ('1.2.0', '2.0.0', 'onedl-mmpretrain'),
}

# Import name of what segmentation and detection configs need beside -> what to install.
TASK_LIBRARIES = {'mmseg': 'onedl-mmsegmentation', 'mmdet': 'onedl-mmdetection'}


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
    # Not there with torch alone.
    from packaging.version import Version

    lowest, limit, distribution = REQUIREMENTS[module]
    found = importlib.import_module(module).__version__
    wanted = f'>={lowest}' + (f',<{limit}' if limit else '')
    if Version(found) < Version(lowest) or (limit is not None and Version(found) >= Version(limit)):
        raise ImportError(f"mmmap needs {module}{wanted}, found {found}: run `pip install '{distribution}{wanted}'`.")


def check_task_library(module: str) -> None:
    """Check that mmseg or mmdet can be imported, compiled operators of mmcv included, which both need.

    Args:
        module (str): Its import name, a key of ``TASK_LIBRARIES``.

    Raises:
        ImportError: If it cannot; one line that says what is missing and the command that installs it.
    """
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
