"""Finds and reads the config that a child config is to inherit from."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import init_default_scope
from mmengine.utils import get_installed_path

from mmmap.engine.config_file import read_config
from mmmap.utils.errors import UserError
from mmmap.utils.versions import check_task_library

#: The packages whose installed configs can be named as ``PACKAGE::PATH``.
PACKAGES = ('mmpretrain', 'mmseg', 'mmdet')
_SHOWN = 3


@dataclass(frozen=True)
class BaseConfig:
    """A config that others inherit from.

    Attributes:
        name (str): As the user gave it, for messages.
        path (Path): Its file.
        cfg (Config): What is in it and in its own bases.
    """

    name: str
    path: Path
    cfg: Config

    def reference(self, folder: Path) -> str:
        """The ``_base_`` of a child config in a folder: the name of an installed config, or a relative path."""
        return self.name if '::' in self.name else os.path.relpath(self.path.resolve(), folder.resolve())


def read_base(name: str) -> BaseConfig:
    """Read an installed config, ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``, or one in a file.

    Raises:
        UserError: If there is no such config, or it cannot be read or inherited from.
    """
    path = _installed(name) if '::' in name else Path(name)
    if not path.is_file():
        raise UserError(f'config file not found: {name}{_near_files(path)}')
    if _is_new_style(path):
        raise UserError(
            f'{name} is written in the new style (`with read_base():`), which a child config with `_base_` cannot '
            'inherit from: take the config of that name in the old style, such as mmdet::retinanet/...'
        )
    cfg = read_config(path)
    if '::' in name:
        # As a child reads it: with the package noted beside each type.
        cfg = Config.fromstring(f'_base_ = {name!r}', '.py')
    scope = cfg.get('default_scope', 'mmpretrain')
    if scope not in PACKAGES:
        raise UserError(f'{name}: default_scope={scope!r}: must be one of {list(PACKAGES)}')
    if 'model' not in cfg:
        raise UserError(f'{name} has no model: give the config of a run, not a part of one')
    init_default_scope(scope)
    return BaseConfig(name, path, cfg)


def _is_new_style(path: Path) -> bool:
    try:
        return Config._is_lazy_import(str(path))
    # Reading it explains more.
    except Exception:
        return False


def _installed(name: str) -> Path:
    """The file of an installed config."""
    package, _, inner = name.partition('::')
    if package not in PACKAGES:
        near = difflib.get_close_matches(package, PACKAGES, n=1)
        raise UserError(
            f'{name}: {package!r} is none of {", ".join(PACKAGES)}'
            + (f'; did you mean {near[0]}::{inner}?' if near else '')
        )
    if package != 'mmpretrain':
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
    return '; installed configs are written PACKAGE::PATH, such as mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'
