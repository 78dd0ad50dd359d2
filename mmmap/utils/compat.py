"""Small cures for environments in which the OpenMMLab stack would not import or resume.

Each function repairs one thing, does nothing where that thing is healthy, and may be called again. They run when
``mmmap`` is imported, before anything that needs them.
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

# Held for the life of the process: a library object that is collected takes its schemas with it.
_TORCHVISION_SCHEMAS: list[torch.library.Library] = []

# Import name -> distributions that provide it, the one mmengine knows first.
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
    """Declare torchvision's ``nms`` and ``qnms`` operators where its C++ library cannot be loaded.

    Importing torchvision registers fake kernels for the two operators by name, which raises if the C++ library that
    defines them was built for another torch (a CPU torch beside a CUDA torchvision, for instance). With the bare
    schemas in place the import succeeds; calling the operators still raises, and mmcv supplies its own ``nms``.

    Returns:
        bool: True if the schemas had to be declared, now or in an earlier call.
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
    """Keep mmpretrain from importing its multimodal models beside transformers 5 or later.

    They subclass names that transformers 5 removed, so with pycocotools and transformers >= 5 installed
    ``import mmpretrain.models`` raises TypeError. Without them mmpretrain registers placeholders that say so when used.

    Returns:
        bool: True if the multimodal models were switched off by this call.
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
    """Import mmpretrain's models without the mmdet that they try to import.

    They define one layer, ``ResLayerExtraNorm``, for detectors if mmdet can be imported. That makes every user with
    mmdet installed wait for it, and fail with it where mmcv lacks its compiled operators. Import mmdet before mmmap to
    have that layer.

    Returns:
        bool: True if mmdet was kept out, False if it or mmpretrain's models were imported before.
    """
    if 'mmdet' in sys.modules or 'mmpretrain.models' in sys.modules:
        return False
    # None makes the import system raise ImportError, which mmpretrain handles.
    sys.modules['mmdet'] = None  # type: ignore[assignment]
    try:
        importlib.import_module('mmpretrain.models')
    finally:
        del sys.modules['mmdet']
    return True


def name_installed_distributions() -> dict[str, str]:
    """Tell mmengine which distribution provides mmpretrain, mmseg and mmdet.

    mmengine maps import names to the original distributions and pip-installs what it does not find, for example when a
    config inherits ``mmseg::...`` and only the maintained fork is installed.

    Returns:
        dict[str, str]: The import names whose distribution was changed, with the new one.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    changed = {}
    for module, (original, fork) in _DISTRIBUTIONS.items():
        if _installed_version(original) is None and _installed_version(fork) is not None:
            changed[module] = fork
    MODULE2PACKAGE.update(changed)
    return changed


def make_fsdp_resumable() -> bool:
    """Give the state of an optimizer to FSDP by name: mmengine gives it in the order that torch had before 2.1.

    Weights of which none fits are an error, as :mod:`~mmmap.utils.checkpoint_fit` makes it elsewhere.

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
    """Run every cure, in the order in which the imports need them."""
    make_torchvision_importable()
    name_installed_distributions()
    switch_off_broken_multimodal()
    # Here, as the other cures are also needed where the rest of the package cannot be imported.
    from . import safe_mmengine

    safe_mmengine.install()
    make_fsdp_resumable()
    import_mmpretrain_alone()
