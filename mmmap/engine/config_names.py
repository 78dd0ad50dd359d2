"""Finds a config by its file, or by the name it has in an installed package."""

import difflib
from pathlib import Path

from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path

from ..utils.errors import UserError
from ..utils.versions import check_task_library

#: The packages whose installed configs can be named as ``PACKAGE::PATH``.
PACKAGES = ('mmmap', 'mmpretrain', 'mmseg', 'mmdet')
_SHOWN = 3


def find_config(name: str | Path) -> Path:
    """The file of a config: of an installed one, such as ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``, or a path.

    Raises:
        UserError: If there is none, or the package is not installed; the line names configs with a similar name.
    """
    name = str(name)
    path = _installed(name) if '::' in name else Path(name)
    if not path.is_file():
        raise UserError(f'config file not found: {name}{_near_files(path)}')
    return path


def _installed(name: str) -> Path:
    """The file of an installed config."""
    package, _, inner = name.partition('::')
    if package not in PACKAGES:
        near = difflib.get_close_matches(package, PACKAGES, n=1)
        raise UserError(
            f'{name}: {package!r} is none of {", ".join(PACKAGES)}'
            + (f'; did you mean {near[0]}::{inner}?' if near else '')
        )
    if package in ('mmseg', 'mmdet'):
        try:
            check_task_library(package)
        except ImportError as error:
            raise UserError(f'{name}: {error}') from error
    root = Path(get_installed_path(MODULE2PACKAGE[package]), '.mim', 'configs')
    if not (root / inner).is_file():
        raise UserError(f'{package} has no config {inner}{_near_configs(inner, root, package)}')
    return root / inner


def _near_configs(inner: str, root: Path, package: str) -> str:
    names = [str(path.relative_to(root)) for path in root.rglob('*.py') if '_base_' not in path.parts]
    # The folder may be wrong or missing while the file is right.
    near = [name for name in names if Path(name).name == Path(inner).name]
    near += difflib.get_close_matches(inner, names, n=_SHOWN, cutoff=0.6)
    by_file = {Path(name).name: name for name in names}
    near += [by_file[name] for name in difflib.get_close_matches(Path(inner).name, by_file, n=_SHOWN, cutoff=0.6)]
    shown = [f'{package}::{name}' for name in dict.fromkeys(near)][:_SHOWN]
    return f'; near are {", ".join(shown)}' if shown else f'; its configs are in {root}'


def _near_files(path: Path) -> str:
    names = [item.name for item in path.parent.glob('*.py')] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=_SHOWN, cutoff=0.6)
    if near:
        return f'; near are {", ".join(str(path.parent / name) for name in near)}'
    return '; installed configs are written PACKAGE::PATH, such as mmmap::map/vit-mamba_in1k.py'
