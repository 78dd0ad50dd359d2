"""Loading of weights into backbones: weights of another architecture are an error, all others are logged."""

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from mmengine.logging import print_log
from mmengine.model import BaseModule, ModuleDict, PretrainedInit, update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmmap.utils.wrapped_names import without_wrappers


def describe_arch(embed_dim: int, layout: str, archs: dict[str, dict]) -> str:
    """Describe an architecture in a few words: its name in ``archs`` if it has one, its width and its layout."""
    named = [name for name, arch in archs.items() if (arch['embed_dim'], arch['layout']) == (embed_dim, layout)]
    unit, repeats = next(
        (layout[:n], len(layout) // n) for n in range(1, len(layout) + 1) if layout[:n] * (len(layout) // n) == layout
    )
    shown = f'{unit!r} * {repeats}' if repeats > 1 else repr(layout)
    return f'{named[0] if named else "custom"} (width {embed_dim}, layout {shown})'


def compact_names(names: Iterable[str]) -> str:
    """List names of weights; names that differ in the number of the block are one: ``blocks.{0-2,4}.norm.weight``."""
    numbers: dict[tuple[str, ...], list[int]] = {}
    for name in names:
        before, *rest = re.split(r'(?<=\.)(\d+)(?=\.)', name, maxsplit=1)
        # A name without a number is all 'before'.
        numbers.setdefault((before, *rest[1:]), []).extend(map(int, rest[:1]))
    listed = []
    for parts, blocks in numbers.items():
        runs: list[list[int]] = []
        for block in sorted(blocks):
            if runs and block == runs[-1][1] + 1:
                runs[-1][1] = block
            else:
                runs.append([block, block])
        shown = ','.join(f'{first}-{last}' if last > first else f'{first}' for first, last in runs)
        listed.append((f'{{{shown}}}' if len(blocks) > 1 else shown).join(parts))
    return ', '.join(listed) or 'none'


def _times(shape: Iterable[int]) -> str:
    return 'x'.join(map(str, shape)) or 'a scalar'


def _store_layout(module: 'PretrainedBackbone', _state_dict: dict, _prefix: str, metadata: dict) -> None:
    metadata['layout'] = module.encoder.layout


def _names_by_block(names: Iterable[str]) -> dict[int, set[str]]:
    """The weights of each block from names below ``encoder.blocks``, without the optional ones of neighbours."""
    blocks: dict[int, set[str]] = {}
    for name in names:
        number, _, rest = name.partition('.')
        if number.isdecimal() and not rest.startswith('local.'):
            blocks.setdefault(int(number), set()).add(rest)
    return blocks


def _guess_layout(blocks: dict[int, set[str]]) -> str:
    """The layout of a file that does not store it."""
    letters = {'mixer.A_log': 'M', 'attn.qkv.weight': 'T', 'transformer.attn.qkv.weight': 'T'}
    return ''.join(next((k for name, k in letters.items() if name in blocks[i]), '?') for i in sorted(blocks))


def stored_arch(weights: Mapping[str, Tensor], prefix: str, metadata: Mapping[str, Any]) -> tuple[int, str] | None:
    """The width and the layout of the backbone in the weights of a checkpoint.

    Args:
        weights (Mapping[str, Tensor]): Weights by name.
        prefix (str): What the names of the backbone's begin with, such as 'backbone.'.
        metadata (Mapping[str, Any]): What torch stores beside the weights of the backbone, if anything.

    Returns:
        tuple[int, str]: None if there is no whole backbone. In a layout that the file does not store, blocks of an
        unknown kind are '?'.
    """
    start = f'{prefix}encoder.blocks.'
    blocks = _names_by_block(without_wrappers(key.removeprefix(start)) for key in weights if key.startswith(start))
    norm = weights.get(f'{prefix}encoder.norm.weight')
    if not blocks or norm is None:
        return None
    return len(norm), metadata.get('layout') or _guess_layout(blocks)


def _check_loaded(
    module: 'PretrainedBackbone', state_dict: dict[str, Tensor], prefix: str, metadata: dict, *_args: object
) -> None:
    """Raise a ValueError for weights of another architecture, which a load that is not strict would only skip."""
    start = f'{prefix}encoder.blocks.'
    theirs = _names_by_block(without_wrappers(key.removeprefix(start)) for key in state_dict if key.startswith(start))
    found = stored_arch(state_dict, prefix, metadata)
    if found is None:
        return
    # Not from the state dict, which FSDP would gather.
    ours = _names_by_block(without_wrappers(name) for name, _ in module.encoder.blocks.named_parameters())
    alike = theirs.keys() == ours.keys() and not any(ours[i] - theirs[i] and theirs[i] - ours[i] for i in ours)
    own = module.encoder.embed_dim, module.encoder.layout
    if not alike or found[0] != own[0] or (found[1] != own[1] and 'layout' in metadata):
        raise ValueError(
            f'{prefix or "backbone"}: the checkpoint is of another arch, '
            f'{describe_arch(*found, module.archs)}, than the model, '
            f'{describe_arch(*own, module.archs)}: choose its arch in the config, or a checkpoint of this one'
        )


def _is_pretrained(kind: str | type | None) -> bool:
    return (WEIGHT_INITIALIZERS.get(kind) if isinstance(kind, str) else kind) is PretrainedInit


class PretrainedBackbone(BaseModule):
    """A backbone with a :class:`~mmmap.models.layers.HybridEncoder`, ``encoder``, that checks the weights it loads.

    ``init_cfg=dict(type='Pretrained', checkpoint=FILE_OR_URL, prefix='backbone.')`` logs which weights of the backbone
    are new (not in the file), which were resized (position embeddings of another grid), and which weights of the file
    are left over. Weights of another architecture are an error that names both, however they are loaded.
    """

    #: Settings of each architecture that has a name.
    archs: ClassVar[dict[str, dict]] = {}
    init_cfg: Any
    is_init: bool

    def __init__(self, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg)
        # Not bound methods: a deep copy of the module would keep those of the original.
        self.register_state_dict_post_hook(_store_layout)
        self.register_load_state_dict_pre_hook(_check_loaded)

    def init_weights(self) -> None:
        """Initialise as ``init_cfg`` says, pretrained weights last.

        Raises:
            ValueError: If a checkpoint has no weight of the backbone under the prefix, is of another architecture, or
                has a weight of another shape that cannot be resized.
        """
        cfgs = [self.init_cfg] if isinstance(self.init_cfg, dict) else list(self.init_cfg or [])
        pretrained = [cfg for cfg in cfgs if _is_pretrained(cfg.get('type'))]
        if self.is_init or not pretrained:
            super().init_weights()
            return
        if not hasattr(self, '_params_init_info'):
            # mmengine keeps a record of what set each parameter in the module whose init_weights is called first, and
            # dumps it when that call ends. A parent keeps it open until the weights below are loaded.
            ModuleDict(dict(backbone=self)).init_weights()
            return
        given, self.init_cfg = self.init_cfg, [cfg for cfg in cfgs if cfg not in pretrained]
        try:
            super().init_weights()
        finally:
            self.init_cfg = given
        self.is_init = False
        for cfg in pretrained:
            self._load_pretrained(PretrainedInit(**{key: value for key, value in cfg.items() if key != 'type'}))
        self.is_init = True

    def _load_pretrained(self, init: PretrainedInit) -> None:
        """Load the checkpoint that mmengine's initializer names, and log what became of each weight."""
        weights, source = self._read(init)
        own = {name: value.shape for name, value in self.state_dict().items()}
        differing = [name for name in own if name in weights and weights[name].shape != own[name]]
        try:
            new, left_over = self.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            misfits = [name for name in differing if f'size mismatch for {name}:' in str(error)]
            if not misfits:
                raise
            by_shape: dict[tuple[str, str], list[str]] = {}
            for name in misfits:
                by_shape.setdefault((_times(weights[name].shape), _times(own[name])), []).append(name)
            told = '; '.join(f'{compact_names(bad)} {theirs}, here {ours}' for (theirs, ours), bad in by_shape.items())
            raise ValueError(
                f'{source}: weights of other shapes than those of {type(self).__name__}: {told}'
            ) from error
        # Only weights of shape (1, *grid, C) can be resized.
        resized = [f'{n} from {_times(weights[n].shape[1:-1])} to {_times(own[n][1:-1])}' for n in differing]
        for line in (
            f'{type(self).__name__}: {len(own) - len(new)} of {len(own)} weights from {source}',
            f'new, not in the file ({len(new)}): {compact_names(new)}',
            f'resized ({len(resized)}): {", ".join(resized) or "none"}',
            f'left over, not in the model ({len(left_over)}): {compact_names(left_over)}',
        ):
            print_log(line, logger='current')
        if any(name.startswith('encoder.') for name in new):
            print_log(
                f'{source} is no whole encoder: the new part keeps its initialisation', 'current', logging.WARNING
            )
        update_init_info(self, init_info=init._get_init_info())

    def _read(self, init: PretrainedInit) -> tuple[dict[str, Tensor], str]:
        """The weights of a checkpoint under the prefix, with the prefix removed, and a description of the source."""
        checkpoint = CheckpointLoader.load_checkpoint(init.checkpoint, init.map_location, 'current')
        weights = checkpoint.get('state_dict', checkpoint)
        source = str(init.checkpoint)
        path = ''
        if init.prefix is None:
            found = {key.removeprefix('module.'): value for key, value in weights.items()}
        else:
            path = init.prefix.removesuffix('.')
            found = {key[len(path) + 1 :]: value for key, value in weights.items() if key.startswith(f'{path}.')}
            source = f'{path}.* of {source}'
        if self.state_dict().keys().isdisjoint(found):
            prefixes = sorted({key.split('.')[0] + '.' * ('.' in key) for key in weights})
            raise ValueError(
                f'{source}: none of its {len(found)} weights is one of {type(self).__name__}; '
                f'the prefixes in the file are {", ".join(map(repr, prefixes))}: set that of init_cfg to one that fits'
            )
        named = OrderedDict(found)
        metadata = {'': getattr(weights, '_metadata', {}).get(path, {})}
        named._metadata = metadata  # type: ignore[attr-defined]  # Where torch looks for it.
        return named, source
