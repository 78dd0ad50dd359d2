"""Repairs of environments in which the OpenMMLab packages cannot be imported, or cannot resume.

Each function repairs one thing and may be called again. All run when ``mmmap`` is imported.
"""

import importlib
import importlib.util
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

# Kept as long as the process runs: the schemas of a library object end with it.
_TORCHVISION_SCHEMAS: list[torch.library.Library] = []

# By import name: the distribution that mmengine knows, and the maintained fork.
_DISTRIBUTIONS = {
    'mmpretrain': ('mmpretrain', 'onedl-mmpretrain'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
}


def _installed_version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def make_torchvision_importable() -> bool:
    """Declare torchvision's ``nms`` and ``qnms`` operators if its C++ library cannot be loaded.

    That library may be built for another torch (a CPU torch beside a CUDA torchvision, for instance). Importing
    torchvision then raises, as it registers fake kernels for the two operators. They cannot be called here; mmcv has an
    ``nms`` of its own.

    Returns:
        bool: True if they were declared, now or earlier.
    """
    if _TORCHVISION_SCHEMAS:
        return True
    spec = importlib.util.find_spec('torchvision')
    if spec is None or spec.origin is None or hasattr(torch.ops.torchvision, 'nms'):
        return False
    folder = Path(spec.origin).parent
    for library in (folder / f'_C{suffix}' for suffix in EXTENSION_SUFFIXES):
        if library.is_file():
            try:
                torch.ops.load_library(str(library))
            except (ImportError, OSError):
                continue
            return False
    fragment = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        fragment.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    _TORCHVISION_SCHEMAS.append(fragment)
    return True


def switch_off_broken_multimodal() -> bool:
    """Keep mmpretrain from importing its multimodal models, whose base classes transformers 5 has removed.

    ``import mmpretrain.models`` would raise TypeError. mmpretrain registers placeholders instead.

    Returns:
        bool: True if the models were switched off by this call.
    """
    transformers = _installed_version('transformers')
    if transformers is None or int(transformers.split('.')[0]) < 5:
        return False
    # Importing this module does not import mmpretrain.models.
    from mmpretrain.utils import dependency

    if not dependency.WITH_MULTIMODAL:
        return False
    dependency.WITH_MULTIMODAL = False
    warnings.warn(
        f"mmpretrain's multimodal models are switched off: they need transformers < 5, found {transformers}.",
        stacklevel=2,
    )
    return True


def import_mmpretrain_alone() -> bool:
    """Import mmpretrain's models without mmdet, which they import for one layer, ``ResLayerExtraNorm``.

    mmdet takes time, and its import fails if mmcv lacks its compiled operators. For that layer, import mmdet before
    mmmap.

    Returns:
        bool: False if mmdet or mmpretrain's models were imported before.
    """
    if 'mmdet' in sys.modules or 'mmpretrain.models' in sys.modules:
        return False
    # The import of None raises ImportError, which mmpretrain handles.
    sys.modules['mmdet'] = None  # type: ignore[assignment]
    try:
        importlib.import_module('mmpretrain.models')
    finally:
        del sys.modules['mmdet']
    return True


def name_installed_distributions() -> dict[str, str]:
    """Tell mmengine the installed distributions of mmpretrain, mmseg and mmdet, so that it installs no others.

    Returns:
        dict[str, str]: The new distributions by import name.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    changed = {}
    for module, (original, fork) in _DISTRIBUTIONS.items():
        if _installed_version(original) is None and _installed_version(fork) is not None:
            changed[module] = fork
    MODULE2PACKAGE.update(changed)
    return changed


def make_fsdp_resumable() -> bool:
    """Let mmengine's FSDP strategy load optimizers in the order of arguments since torch 2.1, and refuse misfits.

    Returns:
        bool: True if mmengine has a strategy for FSDP.
    """
    from mmengine._strategy import fsdp

    from .errors import UserError

    if not hasattr(fsdp, 'FSDPStrategy'):
        return False

    def load_optim_state_dict(self: fsdp.FSDPStrategy, state_dict: dict) -> None:
        wrapper = self.optim_wrapper
        wrapper.load_state_dict(
            fsdp.FSDP.optim_state_dict_to_load(model=self.model, optim=wrapper.optimizer, optim_state_dict=state_dict)
        )

    def load_model_state_dict(self: fsdp.FSDPStrategy, state_dict: dict, *, strict: bool = False, **_: Any) -> None:
        found = self.model.load_state_dict(state_dict, strict=strict)
        if len(found.unexpected_keys) >= len(state_dict):
            names = f'{next(iter(state_dict), None)!r}, those of the model like {found.missing_keys[0]!r}'
            raise UserError(f'none of the weights of the checkpoint fits the model; its names are like {names}')

    fsdp.FSDPStrategy.load_optim_state_dict = load_optim_state_dict
    fsdp.FSDPStrategy.load_model_state_dict = load_model_state_dict
    return True


def apply() -> None:
    """Run all repairs, in the order in which the imports need them."""
    make_torchvision_importable()
    name_installed_distributions()
    switch_off_broken_multimodal()
    # The repairs above also serve where this cannot be imported.
    from . import safe_mmengine

    safe_mmengine.install()
    make_fsdp_resumable()
    import_mmpretrain_alone()
