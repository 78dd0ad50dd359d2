"""Infers the model in a released MAP or Mamba-R checkpoint from the shapes of its parameters."""

from typing import Any

from torch import Tensor

from mmmap.models.backbones.map_hybrid import ARCHS

from .image_keys import LISTS, find_task, grid_side
from .key_renaming import count_blocks, find_layout

#: The parameters that tell the architecture, and how many dimensions each has.
_NEEDED = {
    'patch_embed.proj.weight': 4,
    'pos_embed': 3,
    'layers.0.mixer.A_log': 2,
    'layers.0.mixer.conv1d.weight': 3,
}
_NEEDED_OF_TRANSFORMER = {'blocks.0.mlp.fc1.weight': 2}
_NEEDED_OF_TASK = {
    'pretraining': {
        'decoder_embed.weight': 2,
        'decoder_pos_embed_learned': 3,
        'decoder_blocks.0.mlp.fc1.weight': 2,
        'ar_pred.weight': 2,
    },
    'classification': {'cls_token': 3, 'head.weight': 2},
}
#: Only a classifier that narrows its registers has these.
_NARROWING = {'neck.weight': 2, 'norm_neck.weight': 1}
_KINDS = {'pretraining': 'a MAP pretraining checkpoint', 'classification': 'a classifier with registers and a head'}

#: The released numbers of attention heads, which no shape tells. The released large only runs with another one.
DEFAULT_NUM_HEADS = 12
DEFAULT_NUM_HEADS_OF_WIDTH = {1024: 16}
DEFAULT_DECODER_NUM_HEADS = 16

#: The released scripts normalise by ImageNet's statistics, here for images as OpenCV reads them.
_PREPROCESSING = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)


def infer_model_cfg(
    state_dict: dict[str, Tensor],
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    task: str | None = None,
) -> dict:
    """Infer the config of the model in a released checkpoint from the shapes.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.
        num_heads (int, optional): Heads of the encoder's Transformer blocks. Defaults to 12, and 16 at width 1024.
        decoder_num_heads (int, optional): Heads of the decoder, if there is one. Defaults to the released 16.
        task (str, optional): 'pretraining' or 'classification', for a checkpoint that holds both. Defaults to
            pretraining if there is a decoder, else classification.

    Returns:
        dict: A config of a ``MAP``, or of mmpretrain's ``ImageClassifier`` for classification.

    Raises:
        ValueError: If the checkpoint lacks a part of the model or its shapes contradict each other.
    """
    task = find_task(state_dict, task)
    layout = find_layout(state_dict, *LISTS)
    needed = _NEEDED | _NEEDED_OF_TASK[task]
    if 'T' in layout:
        needed |= _NEEDED_OF_TRANSFORMER
    if task == 'classification' and any(key in state_dict for key in _NARROWING):
        needed |= _NARROWING
    check_needed(state_dict, needed, _KINDS[task])
    embed_dim = len(state_dict['patch_embed.proj.weight'])
    if num_heads is None:
        num_heads = DEFAULT_NUM_HEADS_OF_WIDTH.get(embed_dim, DEFAULT_NUM_HEADS)
    arch = infer_arch(state_dict, layout, embed_dim, num_heads, 'layers.0.mixer', 'blocks.0.mlp')
    if task == 'pretraining':
        return _map_cfg(state_dict, arch, decoder_num_heads)
    return _classifier_cfg(state_dict, arch)


def check_needed(state_dict: dict[str, Tensor], needed: dict[str, int], kind: str) -> None:
    """Check the parameters that tell an architecture, by their names and numbers of dimensions.

    Raises:
        ValueError: If one is missing, empty, or has another number of dimensions; the message names ``kind``.
    """
    missing = [key for key in needed if key not in state_dict]
    if missing:
        raise ValueError(f'not {kind}: it has no {", ".join(missing)}')
    misshapen = [key for key, ndim in needed.items() if state_dict[key].ndim != ndim or 0 in state_dict[key].shape]
    if misshapen:
        shapes = ', '.join(f'{key} {tuple(state_dict[key].shape)}' for key in misshapen)
        raise ValueError(f'not {kind}: unexpected shapes {shapes}')


def infer_arch(
    state_dict: dict[str, Tensor], layout: str, embed_dim: int, num_heads: int, mixer: str, mlp: str
) -> dict[str, Any]:
    """Settings of the encoder, without registers; ``mixer`` and ``mlp`` are the names of the first of each."""
    inner_dim, d_state = state_dict[f'{mixer}.A_log'].shape
    arch = dict(
        embed_dim=embed_dim,
        layout=layout,
        num_heads=num_heads,
        d_state=d_state,
        d_conv=state_dict[f'{mixer}.conv1d.weight'].shape[-1],
        expand=inner_dim // embed_dim,
    )
    return arch | (dict(mlp_ratio=len(state_dict[f'{mlp}.fc1.weight']) / embed_dim) if 'T' in layout else {})


def named_arch(arch: dict[str, Any], archs: dict[str, dict], num_registers: int | None = None) -> str | dict[str, Any]:
    """The name of an architecture if it has one (with as many registers, if given), else the architecture."""
    defaults = dict(mlp_ratio=2.0, d_state=16, d_conv=4, expand=2, num_registers=None)
    for name, known in archs.items():
        registers = known.get('num_registers') if num_registers is None else num_registers
        if {**defaults, **arch, 'num_registers': registers} == {**defaults, **known}:
            return name
    return arch


def _image_cfg(state_dict: dict[str, Tensor]) -> dict:
    """Arguments of the backbone that the images decide."""
    _, in_channels, patch_size, _ = state_dict['patch_embed.proj.weight'].shape
    grid = grid_side(state_dict['pos_embed'].shape[1], 'pos_embed')
    return dict(img_size=grid * patch_size, patch_size=patch_size, in_channels=in_channels)


def _map_cfg(state_dict: dict[str, Tensor], arch: dict, decoder_num_heads: int | None) -> dict:
    image = _image_cfg(state_dict)
    decoder_dim = state_dict['decoder_embed.weight'].shape[0]
    return dict(
        type='MAP',
        backbone=dict(type='MAPHybrid', arch=named_arch(arch, ARCHS), **image, out_type='raw'),
        neck=dict(
            type='RegionCausalDecoder',
            in_dim=arch['embed_dim'],
            grid=grid_side(state_dict['decoder_pos_embed_learned'].shape[1], 'decoder_pos_embed_learned'),
            embed_dim=decoder_dim,
            depth=count_blocks(state_dict, 'decoder_blocks'),
            num_heads=DEFAULT_DECODER_NUM_HEADS if decoder_num_heads is None else decoder_num_heads,
            mlp_ratio=state_dict['decoder_blocks.0.mlp.fc1.weight'].shape[0] / decoder_dim,
        ),
        head=dict(
            type='PixelReconstructionHead',
            in_dim=decoder_dim,
            patch_size=image['patch_size'],
            in_channels=image['in_channels'],
        ),
        masking=dict(type='RandomMasking', ratio=(0.3, 0.7)),
        data_preprocessor=dict(type='mmpretrain.SelfSupDataPreprocessor', **_PREPROCESSING),
    )


def _classifier_cfg(state_dict: dict[str, Tensor], arch: dict) -> dict:
    embed_dim, num_registers = arch['embed_dim'], state_dict['cls_token'].shape[1]
    num_classes = state_dict['head.weight'].shape[0]
    reduction = 1
    if 'neck.weight' in state_dict:
        narrow = state_dict['neck.weight'].shape[0]
        reduction, rest = divmod(embed_dim, narrow)
        if rest:
            raise ValueError(
                f'neck.weight: registers narrowed to {narrow}, which does not divide the width {embed_dim}'
            )
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='MAPHybrid',
            arch=named_arch(arch, ARCHS, num_registers),
            **_image_cfg(state_dict),
            out_type='registers',
            num_registers=num_registers,
        ),
        neck=dict(type='RegisterNeck', in_dim=embed_dim, num_registers=num_registers, reduction=reduction),
        head=dict(
            type='mmpretrain.LinearClsHead',
            num_classes=num_classes,
            in_channels=num_registers * embed_dim // reduction,
            # Another default scope has a loss of this name, too.
            loss=dict(type='mmpretrain.CrossEntropyLoss'),
        ),
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', num_classes=num_classes, **_PREPROCESSING),
    )
