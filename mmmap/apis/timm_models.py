"""Import this module to use the models of mmmap by timm: ``timm.create_model('map_hybrid_base')``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.models import register_model

from .create_model import FeatureModel, create_model, list_models
from .image_model import ImageModel


def _register(name: str) -> None:
    def build(
        pretrained: bool = False, pretrained_cfg: Any = None, pretrained_cfg_overlay: Any = None,
        cache_dir: str | Path | None = None, **options: Any,
    ) -> ImageModel | FeatureModel:  # fmt: skip
        """Build a model as timm asks for it; ``checkpoint_path`` of ``timm.create_model`` loads weights."""
        if pretrained:
            raise ValueError(f'{name}: no weights were published; give checkpoint_path, or mmmap.create_model a file')
        return create_model(name, **options)

    build.__name__ = name
    entry: Callable = register_model(build)
    globals()[name] = entry


for _name in list_models():
    _register(_name)
