"""Models in one line, by name: ``mmmap.create_model('map_hybrid_base', num_classes=10)``."""

import fnmatch
import inspect
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.utils import validate_repo_id
from torch import Tensor, nn

from mmmap.models.backbones.map_hybrid import ARCHS
from mmmap.utils.errors import UserError

from .image_model import ImageModel

_PREFIX = 'map_hybrid_'


class FeatureModel(nn.Module):
    """Feature maps of several blocks, as ``timm.create_model(..., features_only=True)`` gives them.

    Args:
        model (ImageModel): The model whose backbone is used.
        out_indices (Sequence[int], optional): Blocks, negative ones from the end. Defaults to None: the last of each
            quarter.
    """

    def __init__(self, model: ImageModel, out_indices: Sequence[int] | None = None) -> None:
        super().__init__()
        self.backbone = model.backbone
        self.pretrained_cfg = model.pretrained_cfg
        blocks = self.backbone.num_blocks
        if out_indices is None:
            out_indices = sorted({blocks * quarter // 4 - 1 for quarter in range(1, 5) if blocks * quarter >= 4})
        self.out_indices = tuple(i + blocks if i < 0 else i for i in out_indices)
        if not self.out_indices or not all(0 <= i < blocks for i in self.out_indices):
            raise ValueError(f'out_indices={out_indices!r}: each must name one of the {blocks} blocks')
        #: For each map its channels, the pixels of the image to a cell of it, and the block it comes from.
        self.feature_info = [
            dict(num_chs=model.num_features, reduction=self.backbone.patch_size, module=f'backbone.encoder.blocks.{i}')
            for i in self.out_indices
        ]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, C, H / patch_size, W / patch_size) of normalised images (B, in_chans, H, W)."""
        return self.backbone.forward_intermediates(x, self.out_indices, intermediates_only=True)


def list_models(pattern: str = '*') -> list[str]:
    """Names that :func:`create_model` knows, those that match a pattern with * and ?, in the order of their sizes."""
    return fnmatch.filter([f'{_PREFIX}{arch}' for arch in ARCHS], pattern)


def create_model(
    name: str,
    pretrained: str | Path | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    img_size: int | Sequence[int] | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    **options: Any,
) -> ImageModel | FeatureModel:
    """Build a backbone with a classifier, with weights if asked for; in evaluation mode if they are.

    Args:
        name (str): One of :func:`list_models`.
        pretrained (str | Path, optional): Weights: a folder of ``save_pretrained``, a safetensors file, a checkpoint of
            mmmap (.pth), or the name of a repository on the Hugging Face hub (``owner/name``). A folder or a repository
            also says how the model was made, which the other arguments override. Defaults to None, random weights.
        num_classes (int, optional): Classes, or 0 for the pooled features. Defaults to None: that of ``pretrained``,
            else 1000. A classifier of another number of classes is new.
        in_chans (int, optional): Image channels. Defaults to None: that of ``pretrained``, else 3.
        img_size (int | Sequence[int], optional): Image size in pixels of the stored positions; those of other sizes are
            resized. Defaults to None: that of ``pretrained``, else 224.
        features_only (bool): Return a :class:`FeatureModel`. Defaults to False.
        out_indices (Sequence[int], optional): Blocks of the feature maps, with ``features_only`` only.
        **options: Further arguments of :class:`ImageModel`, such as ``patch_size`` and ``global_pool``.

    Raises:
        ValueError: If the name is unknown, or an argument is out of its range.
        TypeError: If an argument is unknown; the message names it.
        UserError: If the weights cannot be found, or do not fit the model.
    """
    if name not in list_models():
        raise ValueError(f'model {name!r} is unknown: choose from {", ".join(list_models())}')
    if out_indices is not None and not features_only:
        raise ValueError(f'out_indices={out_indices!r}: only with features_only=True')
    given = dict(num_classes=num_classes, in_chans=in_chans, img_size=img_size, **options)
    settings: dict[str, Any] = dict(arch=name.removeprefix(_PREFIX))
    weights = None
    if pretrained is not None:
        weights = _find_weights(pretrained)
        stored = _stored_settings(weights)
        if stored.get('arch', settings['arch']) != settings['arch']:
            raise UserError(f'{pretrained} holds a {_PREFIX}{stored["arch"]}, not a {name}')
        settings |= stored
    settings |= {key: value for key, value in given.items() if value is not None}
    if settings.get('classes') and len(settings['classes']) != settings['num_classes']:
        settings['classes'] = None
    model = ImageModel(**settings)
    if weights is not None:
        model.load_weights(weights)
        model.eval()
    return FeatureModel(model, out_indices) if features_only else model


def _find_weights(pretrained: str | Path) -> Path:
    """The file or folder of weights, fetched from the hub if the name is that of a repository."""
    if not isinstance(pretrained, str | os.PathLike):
        raise UserError(f'pretrained={pretrained!r}: name a file, a folder, or a repository owner/name of the hub')
    path = Path(pretrained)
    if path.exists():
        return path
    from huggingface_hub import snapshot_download

    try:
        validate_repo_id(str(pretrained))
        if '/' not in str(pretrained) or path.suffix:
            raise HFValidationError
        return Path(snapshot_download(str(pretrained), allow_patterns=['config.json', 'model.safetensors']))
    except HFValidationError as error:
        raise UserError(f'pretrained={str(pretrained)!r}: there is no such file or folder') from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = ' '.join(str(error).split())[:200]
        raise UserError(
            f'pretrained={str(pretrained)!r}: there is no such file or folder, and the hub gave none: {reason}'
        ) from error


def _stored_settings(path: Path) -> dict[str, Any]:
    """The arguments of :class:`ImageModel` that a folder of ``save_pretrained`` holds; none for single files."""
    if not path.is_dir():
        return {}

    try:
        stored = json.loads((path / 'config.json').read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise UserError(f'{path / "config.json"} cannot be read: {error}') from error
    known = inspect.signature(ImageModel).parameters
    if not isinstance(stored, dict) or set(stored) - set(known):
        raise UserError(f'{path / "config.json"}: is not that of a model of mmmap')
    return stored
