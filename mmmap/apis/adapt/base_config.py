"""Finds and reads the config that a child config is to inherit from."""

import os
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmap.engine.config_file import read_config
from mmmap.engine.config_names import find_config
from mmmap.utils.errors import UserError

#: The packages whose configs can be inherited from.
PACKAGES = ('mmpretrain', 'mmseg', 'mmdet')


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
    path = find_config(name)
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
