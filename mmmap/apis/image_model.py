"""Backbones with a linear classifier in plain PyTorch: built by name, used by timm's names, saved as safetensors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.models import MAPHybrid, RegisterNeck
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import load_checkpoint

#: Mean and standard deviation of ImageNet's images, RGB from 0 to 1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POOLS = ('avg', 'registers', '')


class ImageModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name='mmmap',
    license='apache-2.0',
    tags=['image-classification', 'mamba', 'vision'],
):
    """A :class:`~mmmap.models.MAPHybrid` and a linear classifier, with the method names of timm's models.

    ``save_pretrained(FOLDER)`` writes the weights as safetensors and the arguments as JSON. ``from_pretrained(FOLDER)``
    reads both, and ``push_to_hub(NAME)`` publishes them; all three are huggingface_hub's. :meth:`save_checkpoint`
    writes a checkpoint for the configs of mmmap.

    Args:
        arch (str | dict): See :class:`~mmmap.models.MAPHybrid`. Defaults to 'base'.
        num_classes (int): Classes, or 0 for the pooled features. Defaults to 1000.
        in_chans (int): Image channels. Defaults to 3.
        img_size (int | Sequence[int]): Image size in pixels of the stored positions, (height, width). Images of other
            sizes are taken too. Defaults to 224.
        patch_size (int): Side of a patch in pixels; must divide the image size. Defaults to 16.
        global_pool (str): 'avg', the mean of the patches; 'registers', register tokens joined as in Mamba-R; '' for no
            pooling, with ``num_classes=0`` only. Defaults to 'avg'.
        register_reduction (int): By which factor each register is narrowed, with 'registers' only. Defaults to 1.
        drop_path_rate (float): Stochastic depth. Defaults to 0.
        mean, std (Sequence[float], optional): Of the images that the model expects, channels from 0 to 1. Defaults to
            None: ImageNet's for three channels, else 0 and 1.
        classes (Sequence[str], optional): Names of the classes. Defaults to None.
        backbone_options (dict, optional): Further arguments of the backbone, such as ``scan_backend``.

    Attributes:
        num_features (int): Width of the tokens.
        head_hidden_size (int): Width of the pooled features.
        num_prefix_tokens (int): Register tokens in front of the patches in :meth:`forward_features`.

    Raises:
        ValueError: If an argument is out of its range; the message names it.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int | Sequence[int] = 224,
        patch_size: int = 16,
        global_pool: str = 'avg',
        register_reduction: int = 1,
        drop_path_rate: float = 0.0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        classes: Sequence[str] | None = None,
        backbone_options: dict | None = None,
    ) -> None:
        super().__init__()
        if classes is not None and len(classes) != num_classes:
            raise ValueError(f'classes has {len(classes)} names, but num_classes={num_classes}')
        registers = global_pool == 'registers'
        self.backbone = MAPHybrid(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_chans,
            out_type='registers' if registers else 'avg_featmap',
            drop_path_rate=drop_path_rate,
            **(backbone_options or {}),
        )
        self.num_features = self.head_hidden_size = self.backbone.embed_dim
        self.num_prefix_tokens = self.backbone.num_registers
        self.neck: nn.Module = nn.Identity()
        if registers:
            self.neck = RegisterNeck(self.num_features, self.num_prefix_tokens, register_reduction)
            self.head_hidden_size = self.neck.out_dim
        self.classes = None if classes is None else tuple(classes)
        self.pretrained_cfg = dict(
            mean=tuple(mean or (MEAN if in_chans == 3 else (0.0,) * in_chans)),
            std=tuple(std or (STD if in_chans == 3 else (1.0,) * in_chans)),
            input_size=(in_chans, *self.backbone.img_size),
            interpolation='bicubic',
            crop_pct=0.875,
        )
        self.global_pool = global_pool
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a new one for another number of classes.

        Args:
            num_classes (int): Classes, or 0 for none: the model then returns pooled features.
            global_pool (str, optional): 'avg' or '' (no pooling; without a classifier only); a model with registers
                keeps them. Defaults to None: as before.

        Raises:
            ValueError: If the pooling is unknown, or does not go with the model.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in POOLS or num_classes < 0:
            raise ValueError(f'global_pool={pool!r} must be one of {POOLS}, num_classes={num_classes} at least 0')
        if (pool == 'registers') != isinstance(self.neck, RegisterNeck):
            raise ValueError(f'global_pool={pool!r}: registers are chosen when the model is made')
        if not pool and num_classes:
            raise ValueError(f"global_pool='': a classifier of num_classes={num_classes} needs pooled features")
        self.global_pool = pool
        if self.classes is not None and len(self.classes) != num_classes:
            self.classes = None
        self.num_classes = num_classes
        # Its names are those of the head in mmpretrain's classifiers.
        self.head = nn.Sequential()
        if num_classes:
            self.head.fc = nn.Linear(self.head_hidden_size, num_classes)
            nn.init.trunc_normal_(self.head.fc.weight, std=0.02)
            nn.init.zeros_(self.head.fc.bias)

    def get_classifier(self) -> nn.Module:
        """The linear classifier, or an identity without one."""
        return self.head[0] if self.num_classes else self.head

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens of normalised images (B, ``in_chans``, H, W): (B, ``num_prefix_tokens`` + L, C), registers first."""
        return self.backbone.forward_features(x)

    def forward_intermediates(self, x: Tensor, **options: Any) -> Any:
        """Feature maps of several blocks, see :meth:`~mmmap.models.MAPHybrid.forward_intermediates`."""
        return self.backbone.forward_intermediates(x, **options)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool the tokens of :meth:`forward_features` and classify them: (B, ``num_classes``), or the pooled (B, C)."""
        if not self.global_pool:
            return x
        n = self.num_prefix_tokens
        pooled = self.neck((x[:, :n],))[-1] if self.global_pool == 'registers' else x[:, n:].mean(dim=1)
        return pooled if pre_logits else self.head(pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, ``num_classes``) of normalised images (B, ``in_chans``, H, W)."""
        return self.forward_head(self.forward_features(x))

    def load_weights(self, path: str | Path) -> None:
        """Load weights from a checkpoint of mmmap (.pth), a safetensors file, or a folder of ``save_pretrained``.

        A classifier in the file is left out if it has another number of classes, which is logged. Weights that the
        model does not have, such as those of a pretraining's decoder, are not used. Stored positions of another image
        size are resized.

        Raises:
            UserError: If the file is missing or damaged, or a weight of the backbone is missing in it.
            ValueError: If the weights are of another architecture.
        """
        own = self.state_dict()
        weights = read_weights(path)
        for key in [
            key for key in weights if key not in own or (_is_new(key) and weights[key].shape != own[key].shape)
        ]:
            del weights[key]
        new = [key for key in own if key not in weights]
        lost = [key for key in new if not _is_new(key)]
        if lost:
            raise UserError(f'{path}: {len(lost)} weights of the backbone are not in the file, {lost[0]} first')
        self.load_state_dict(weights, strict=False)
        if new:
            print_log(f'{path}: new, not taken from the file: {", ".join(new)}', logger='current')

    def save_checkpoint(self, path: str | Path) -> None:
        """Write a checkpoint that a ``HybridClassifier`` of the same arguments loads."""
        meta = {} if self.classes is None else dict(dataset_meta=dict(classes=self.classes))
        torch.save(dict(state_dict=self.state_dict(), meta=meta), path)


def _is_new(key: str) -> bool:
    """Whether a weight belongs to a part that another task does not share."""
    return key.startswith(('head.', 'neck.'))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of mmmap (.pth), a safetensors file, or a folder of ``save_pretrained``.

    Raises:
        UserError: If there is no such file, or it is damaged.
    """
    path = Path(path)
    if path.is_dir():
        path = path / 'model.safetensors'
    if path.suffix != '.safetensors':
        check_checkpoint_file(str(path))
        checkpoint = load_checkpoint(str(path))
        return checkpoint.get('state_dict', checkpoint)
    if not path.is_file():
        raise UserError(f'{path} does not exist')
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f'{path} is damaged: {error}') from error
