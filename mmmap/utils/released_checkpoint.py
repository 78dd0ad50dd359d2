"""The parameter names of the released MAP code, and how they map to ours."""

import math
import re

import torch
from torch import Tensor

#: Released names (as patterns) and ours. ``{M}`` and ``{T}`` stand for the place in our one list of blocks of the
#: released ``layers[i]`` and ``blocks[i]``, ``\\1`` and so on for the pattern's groups; ``[0]`` and
#: ``[1]`` are the directions of a parameter that holds both.
_RULES = [
    (r'pos_embed', r'backbone.pos_embed.weight'),
    (r'patch_embed\.proj\.(weight|bias)', r'backbone.patch_embed.\1'),
    (r'layers\.(\d+)\.norm\.weight', r'backbone.encoder.blocks.{M}.norm.weight'),
    (r'layers\.(\d+)\.mixer\.(in|out)_proj\.weight', r'backbone.encoder.blocks.{M}.mixer.\2_proj.weight'),
    (r'layers\.(\d+)\.mixer\.A_log', r'backbone.encoder.blocks.{M}.mixer.A_log[0]'),
    (r'layers\.(\d+)\.mixer\.A_b_log', r'backbone.encoder.blocks.{M}.mixer.A_log[1]'),
    (r'layers\.(\d+)\.mixer\.D', r'backbone.encoder.blocks.{M}.mixer.D[0]'),
    (r'layers\.(\d+)\.mixer\.D_b', r'backbone.encoder.blocks.{M}.mixer.D[1]'),
    (r'layers\.(\d+)\.mixer\.conv1d\.(weight|bias)', r'backbone.encoder.blocks.{M}.mixer.conv_\2[0]'),
    (r'layers\.(\d+)\.mixer\.conv1d_b\.(weight|bias)', r'backbone.encoder.blocks.{M}.mixer.conv_\2[1]'),
    (
        r'layers\.(\d+)\.mixer\.(x_proj|dt_proj)\.(weight|bias)',
        r'backbone.encoder.blocks.{M}.mixer.\2_\3[0]',
    ),
    (
        r'layers\.(\d+)\.mixer\.(x_proj|dt_proj)_b\.(weight|bias)',
        r'backbone.encoder.blocks.{M}.mixer.\2_\3[1]',
    ),
    (
        r'blocks\.(\d+)\.((?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.(?:weight|bias))',
        r'backbone.encoder.blocks.{T}.\2',
    ),
    (r'norm_f\.weight', r'backbone.encoder.norm.weight'),
    (r'decoder_embed\.(weight|bias)', r'neck.embed.\1'),
    (r'mask_token', r'neck.mask_token'),
    (r'decoder_pos_embed_learned', r'neck.pos_embed.weight'),
    (r'decoder_blocks\.(\d+)\.attn2\.(q|kv|proj)\.(weight|bias)', r'neck.blocks.\1.attn.\2.\3'),
    (r'decoder_blocks\.(\d+)\.norm2_1\.(weight|bias)', r'neck.blocks.\1.norm_query.\2'),
    (r'decoder_blocks\.(\d+)\.norm2_2\.(weight|bias)', r'neck.blocks.\1.norm_context.\2'),
    (r'decoder_blocks\.(\d+)\.norm2\.(weight|bias)', r'neck.blocks.\1.norm_mlp.\2'),
    (r'decoder_blocks\.(\d+)\.(mlp\.fc[12])\.(weight|bias)', r'neck.blocks.\1.\2.\3'),
    (r'decoder_norm\.(weight|bias)', r'neck.norm.\1'),
    (r'ar_pred\.(weight|bias)', r'head.proj.\1'),
]
_RULES = [(re.compile(pattern + r'\Z'), ours) for pattern, ours in _RULES]

#: Parameters of the classifier, which the released pretraining never uses.
_CLASSIFIER_KEYS = ('cls_token', 'pos_embed_cls', 'neck.weight', 'norm_neck.weight', 'head.weight', 'head.bias')

#: What the architecture is inferred from, and how many dimensions each has.
_NEEDED = {
    'patch_embed.proj.weight': 4,
    'pos_embed': 3,
    'layers.0.mixer.A_log': 2,
    'layers.0.mixer.conv1d.weight': 3,
    'decoder_embed.weight': 2,
    'decoder_pos_embed_learned': 3,
    'decoder_blocks.0.mlp.fc1.weight': 2,
    'ar_pred.weight': 2,
}
_NEEDED_OF_TRANSFORMER = {'blocks.0.mlp.fc1.weight': 2}

#: Attention heads, which no shape tells, as released; the released large only runs with another number than its own.
DEFAULT_NUM_HEADS = 12
DEFAULT_NUM_HEADS_OF_WIDTH = {1024: 16}
DEFAULT_DECODER_NUM_HEADS = 16


def _count(state_dict: dict[str, Tensor], module_list: str) -> int:
    found = {int(m[1]) for key in state_dict if (m := re.match(rf'{module_list}\.(\d+)\.', key))}
    if found != set(range(len(found))):
        raise ValueError(f'{module_list}.*: indices {sorted(found)} are not consecutive')
    return len(found)


def released_layout(num_mamba: int, num_transformer: int) -> str:
    """The released order of blocks: a Transformer block behind every third Mamba block while there are any.

    Raises:
        ValueError: If there are more Transformer blocks than places for them.
    """
    if num_transformer > num_mamba // 3:
        raise ValueError(f'blocks.*: {num_transformer} Transformer blocks behind {num_mamba} Mamba layers')
    return ''.join('MMMT'[: 3 + (i < num_transformer)] for i in range(num_mamba // 3)) + 'M' * (num_mamba % 3)


def _side(length: int, key: str) -> int:
    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(f'{key}: {length} positions are not a square grid')
    return side


def infer_model_cfg(
    state_dict: dict[str, Tensor], num_heads: int | None = None, decoder_num_heads: int | None = None
) -> dict:
    """Config of the MAP model that a released pretraining checkpoint holds, inferred from its shapes.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.
        num_heads (int, optional): Heads of the encoder's Transformer blocks, which shapes do not tell. Defaults to the
            released number: 12, and 16 at width 1024.
        decoder_num_heads (int, optional): Heads of the decoder. Defaults to the released 16.

    Returns:
        dict: A config that ``MODELS.build`` makes a ``MAP`` of.

    Raises:
        ValueError: If the checkpoint lacks a part of MAP or its shapes contradict each other.
    """
    layout = released_layout(_count(state_dict, 'layers'), _count(state_dict, 'blocks'))
    needed = _NEEDED | _NEEDED_OF_TRANSFORMER if 'T' in layout else _NEEDED
    missing = [key for key in needed if key not in state_dict]
    if missing:
        raise ValueError(f'not a MAP pretraining checkpoint: it has no {", ".join(missing)}')
    misshapen = [key for key, ndim in needed.items() if state_dict[key].ndim != ndim or 0 in state_dict[key].shape]
    if misshapen:
        shapes = ', '.join(f'{key} {tuple(state_dict[key].shape)}' for key in misshapen)
        raise ValueError(f'not a MAP pretraining checkpoint: {shapes} of another number of dimensions, or empty')
    embed_dim, in_channels, patch_size, _ = state_dict['patch_embed.proj.weight'].shape
    mixer = 'layers.0.mixer.'
    inner_dim, d_state = state_dict[f'{mixer}A_log'].shape
    arch = dict(
        embed_dim=embed_dim,
        layout=layout,
        num_heads=DEFAULT_NUM_HEADS_OF_WIDTH.get(embed_dim, DEFAULT_NUM_HEADS) if num_heads is None else num_heads,
        d_state=d_state,
        d_conv=state_dict[f'{mixer}conv1d.weight'].shape[-1],
        expand=inner_dim // embed_dim,
    )
    if 'T' in layout:
        arch['mlp_ratio'] = state_dict['blocks.0.mlp.fc1.weight'].shape[0] / embed_dim
    decoder_dim = state_dict['decoder_embed.weight'].shape[0]
    grid = _side(state_dict['pos_embed'].shape[1], 'pos_embed')
    return dict(
        type='MAP',
        backbone=dict(
            type='MAPHybrid',
            arch=_named_arch(arch),
            img_size=grid * patch_size,
            patch_size=patch_size,
            in_channels=in_channels,
            out_type='raw',
        ),
        neck=dict(
            type='RegionCausalDecoder',
            in_dim=embed_dim,
            grid=_side(state_dict['decoder_pos_embed_learned'].shape[1], 'decoder_pos_embed_learned'),
            embed_dim=decoder_dim,
            depth=_count(state_dict, 'decoder_blocks'),
            num_heads=DEFAULT_DECODER_NUM_HEADS if decoder_num_heads is None else decoder_num_heads,
            mlp_ratio=state_dict['decoder_blocks.0.mlp.fc1.weight'].shape[0] / decoder_dim,
        ),
        head=dict(type='PixelReconstructionHead', in_dim=decoder_dim, patch_size=patch_size, in_channels=in_channels),
        masking=dict(type='RandomMasking', ratio=(0.3, 0.7)),
        # ImageNet's statistics, which the released script normalises by, for images as OpenCV reads them.
        data_preprocessor=dict(
            type='mmpretrain.SelfSupDataPreprocessor',
            mean=[123.675, 116.28, 103.53],
            std=[58.395, 57.12, 57.375],
            to_rgb=True,
        ),
    )


def _named_arch(arch: dict) -> str | dict:
    """The name of an architecture if it is one of ours, its settings if not."""
    from mmmap.models.backbones.map_hybrid import ARCHS

    defaults = dict(mlp_ratio=2.0, d_state=16, d_conv=4, expand=2)
    for name, settings in ARCHS.items():
        if {**defaults, **arch, 'num_registers': settings['num_registers']} == {**defaults, **settings}:
            return name
    return arch


def convert_state_dict(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Rename the parameters of a released MAP pretraining checkpoint.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.

    Returns:
        tuple: Our state dict of a ``MAP``; our name for each released name; released names that were left out because
        only the classifier uses them.

    Raises:
        ValueError: If a name is not one of the released code's; the message lists all such names.
    """
    layout = released_layout(_count(state_dict, 'layers'), _count(state_dict, 'blocks'))
    places = {letter: [i for i, other in enumerate(layout) if other == letter] for letter in 'MT'}
    converted, names, left_out, unknown = {}, {}, [], []
    for key, value in state_dict.items():
        if key in _CLASSIFIER_KEYS:
            left_out.append(key)
            continue
        for pattern, ours in _RULES:
            if match := pattern.match(key):
                name = match.expand(ours)
                for letter in 'MT':
                    if f'{{{letter}}}' in name:
                        name = name.replace(f'{{{letter}}}', str(places[letter][int(match[1])]))
                names[key] = name
                converted[name] = _reshape(key, value)
                break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(f'{len(unknown)} key(s) are not known to be of the released MAP code: {", ".join(unknown)}')
    return _join_directions(converted), names, left_out


def _join_directions(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """``name[0]`` and ``name[1]`` stacked as ``name``."""
    joined = {}
    for key, value in parts.items():
        if not key.endswith(('[0]', '[1]')):
            joined[key] = value
            continue
        name = key[:-3]
        pair = [parts.get(f'{name}[{i}]') for i in range(2)]
        if pair[0] is None or pair[1] is None or pair[0].shape != pair[1].shape:
            shapes = (f'{name}[{i}] {"missing" if x is None else tuple(x.shape)}' for i, x in enumerate(pair))
            raise ValueError(f'the two directions of a mixer do not fit: {", ".join(shapes)}')
        joined[name] = torch.stack(pair)
    return joined


def _reshape(key: str, value: Tensor) -> Tensor:
    if key in ('pos_embed', 'decoder_pos_embed_learned'):
        side = _side(value.shape[1], key)
        return value.reshape(1, side, side, -1)
    if key.endswith(('conv1d.weight', 'conv1d_b.weight')):
        return value.squeeze(1)  # The depthwise convolution's one input channel.
    return value
