"""The backbone that a config is given: a named size, that of another config, or that of a checkpoint."""

from dataclasses import dataclass, field
from typing import Any

from mmengine.config import ConfigDict

from mmmap.engine.checkpoint_files import check_checkpoint_file
from mmmap.engine.config_file import read_config
from mmmap.engine.config_parts import type_name
from mmmap.models.backbones import MAPHybrid
from mmmap.models.backbones.weight_loading import stored_arch
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import load_checkpoint

#: The mean and the deviation of ImageNet's pixels in RGB, with which named sizes are pretrained.
IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
#: What a backbone of another config takes over. The rest is chosen for the new task.
_SHARED = ('arch', 'img_size', 'patch_size', 'in_channels', 'serialization', 'regions', 'pos_embed')


@dataclass(frozen=True)
class Backbone:
    """A backbone without what the task decides.

    Attributes:
        options (dict): Arguments of ``MAPHybrid``.
        normalization (dict): ``mean`` and ``std`` of the RGB pixels that its weights were trained with.
        pretrained (str, optional): The checkpoint.
    """

    options: dict[str, Any]
    normalization: dict[str, list[float]] = field(default_factory=lambda: dict(IMAGENET))
    pretrained: str | None = None

    @property
    def arch(self) -> dict[str, Any]:
        """Width, layout and other settings."""
        return MAPHybrid.resolve_arch(self.options['arch'])

    @property
    def width(self) -> int:
        """Channels of the maps."""
        return self.arch['embed_dim']

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return self.options.get('patch_size', 16)

    def config(self, **task: Any) -> dict[str, Any]:
        """The ``backbone`` of a config, with arguments of the task."""
        init = {}
        if self.pretrained:
            init['init_cfg'] = dict(type='Pretrained', checkpoint=self.pretrained, prefix='backbone.')
        return dict(type='MAPHybrid') | self.options | task | init

    def taps(self, number: int) -> int | tuple[int, ...]:
        """Blocks for a number of maps, equal parts of the depth apart, the last one included."""
        depth = len(self.arch['layout'])
        if number > depth:
            raise UserError(f'{number} maps of {number} blocks are needed, and the backbone has {depth} blocks')
        return -1 if number == 1 else tuple(depth * (i + 1) // number - 1 for i in range(number))


def choose_backbone(arch: str | None, config: str | None, pretrained: str | None) -> Backbone:
    """Choose the backbone from the options of the command.

    Args:
        arch (str, optional): A named size of ``MAPHybrid``.
        config (str, optional): A config whose backbone is taken.
        pretrained (str, optional): A checkpoint. If neither of the others is given, its weights tell the size.

    Raises:
        UserError: If no option tells the backbone, or an option is wrong.
    """
    if arch is not None and config is not None:
        raise UserError('--arch and --backbone both name the backbone: give one of them')
    if pretrained is not None:
        check_checkpoint_file(pretrained)
    if config is not None:
        return _of_config(config, pretrained)
    if arch is None and pretrained is None:
        raise UserError(
            f'no backbone: give --arch {{{",".join(MAPHybrid.archs)}}}, --backbone CONFIG or --pretrained FILE'
        )
    if arch is not None and arch not in MAPHybrid.archs:
        raise UserError(
            f'--arch {arch} is unknown: choose from {", ".join(MAPHybrid.archs)}, or give --backbone CONFIG'
        )
    return Backbone(dict(arch=arch or _stored_arch(str(pretrained))), pretrained=pretrained)


def _of_config(path: str, pretrained: str | None) -> Backbone:
    cfg = read_config(path)
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    if type_name(backbone.get('type', '')) != 'MAPHybrid':
        raise UserError(f'--backbone {path}: its model.backbone.type is {backbone.get("type")!r}, not MAPHybrid')
    options = {key: backbone[key] for key in _SHARED if key in backbone}
    options.setdefault('arch', 'base')
    data = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    normalization = {key: list(data[key]) for key in ('mean', 'std') if data.get(key) is not None}
    return Backbone(ConfigDict(options).to_dict(), normalization or dict(IMAGENET), pretrained)


def _stored_arch(path: str) -> str:
    """The named size that the weights of a checkpoint have.

    Raises:
        UserError: If they are of no named size.
    """
    if '://' in path:
        raise UserError(f'--pretrained {path}: give its size with --arch, an address is not read for it')
    checkpoint = load_checkpoint(path)
    weights = checkpoint.get('state_dict', checkpoint)
    found = stored_arch(weights, 'backbone.', getattr(weights, '_metadata', {}).get('backbone') or {})
    if found is None:
        raise UserError(f"--pretrained {path}: it has no weights of a MAPHybrid under the prefix 'backbone.'")
    patch = weights.get('backbone.patch_embed.weight')
    for name, arch in MAPHybrid.archs.items():
        if found == (arch['embed_dim'], arch['layout']) and (patch is None or patch.shape[-1] == 16):
            return name
    raise UserError(
        f'--pretrained {path}: its backbone, of width {found[0]} and layout {found[1]!r}, is of no named size: '
        'give the config it was trained with, --backbone CONFIG'
    )
