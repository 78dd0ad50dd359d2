"""The parameter names of the released PointMAP code, and how they map to ours."""

import re

import torch
from torch import Tensor

from .image_keys import count_blocks, join_directions, released_layout

_STATE = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
#: Released names (as patterns), without ``MAE_encoder.``, and ours. ``<list i>`` is the place of a block of a
#: released list in our one list, ``[0]`` and ``[1]`` are the directions of a parameter that holds both.
_ENCODER_RULES = [
    (rf'encoder\.first_conv\.1\.{_STATE}', r'backbone.tokenizer.norm1.\1'),
    (rf'encoder\.second_conv\.1\.{_STATE}', r'backbone.tokenizer.norm2.\1'),
    (r'encoder\.first_conv\.0\.(weight|bias)', r'backbone.tokenizer.fc1.\1'),
    (r'encoder\.first_conv\.3\.(weight|bias)', r'backbone.tokenizer.fc2.\1'),
    (r'encoder\.second_conv\.0\.(weight|bias)', r'backbone.tokenizer.fc_group.\1'),
    (r'encoder\.second_conv\.3\.(weight|bias)', r'backbone.tokenizer.fc3.\1'),
    (r'pos_embed\.0\.(weight|bias)', r'backbone.pos_embed.fc1.\1'),
    (r'pos_embed\.2\.(weight|bias)', r'backbone.pos_embed.fc2.\1'),
    (r'blocks\.(blocks\w*)\.(\d+)\.norm1\.(weight|bias)', r'<\1 \2>.local.norm.\3'),
    (r'blocks\.(blocks\w*)\.(\d+)\.norm2\.(weight|bias)', r'<\1 \2>.norm.\3'),
    (r'blocks\.(blocks\w*)\.(\d+)\.lfa\.lga\.affine_alpha_feat', r'<\1 \2>.local.scale'),
    (r'blocks\.(blocks\w*)\.(\d+)\.lfa\.lga\.affine_beta_feat', r'<\1 \2>.local.shift'),
    (r'blocks\.(blocks\w*)\.(\d+)\.lfa\.mlp\.share_mlp\.(weight|bias)', r'<\1 \2>.local.proj.\3'),
    (r'blocks\.(blocks\w*)\.(\d+)\.lfa\.pre_norm_ft\.(weight|bias)', r'<\1 \2>.local.norm_pooled.\3'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.(in|out)_proj\.weight', r'<\1 \2>.mixer.\3_proj.weight'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.(A_log|D)', r'<\1 \2>.mixer.\3[0]'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.A_b_log', r'<\1 \2>.mixer.A_log[1]'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.D_b', r'<\1 \2>.mixer.D[1]'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.conv1d\.(weight|bias)', r'<\1 \2>.mixer.conv_\3[0]'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.conv1d_b\.(weight|bias)', r'<\1 \2>.mixer.conv_\3[1]'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.(x_proj|dt_proj)\.(weight|bias)', r'<\1 \2>.mixer.\3_\4[0]'),
    (r'blocks\.(blocks)\.(\d+)\.mixer\.(x_proj|dt_proj)_b\.(weight|bias)', r'<\1 \2>.mixer.\3_\4[1]'),
    (r'blocks\.(blocks_vit)\.(\d+)\.mixer\.(.+)', r'<\1 \2>.transformer.\3'),
    (r'norm\.(weight|bias)', r'backbone.encoder.norm.\1'),
]
_PRETRAINING_RULES = [
    (r'mask_token', r'neck.mask_token'),
    (r'decoder_pos_embed\.0\.(weight|bias)', r'neck.pos_embed.fc1.\1'),
    (r'decoder_pos_embed\.2\.(weight|bias)', r'neck.pos_embed.fc2.\1'),
    (r'MAE_decoder\.(blocks\.\d+\..+|norm\.(?:weight|bias))', r'neck.\1'),
    (r'increase_dim\.0\.(weight|bias)', r'head.proj.\1'),
]
_CLASSIFICATION_RULES = [
    (r'cls_token', r'backbone.cls_token'),
    (r'cls_pos', r'backbone.cls_pos_embed'),
    (r'cls_head_finetune\.0\.(weight|bias)', r'head.layers.0.fc.\1'),
    (rf'cls_head_finetune\.1\.{_STATE}', r'head.layers.0.norm.\1'),
    (r'cls_head_finetune\.4\.(weight|bias)', r'head.layers.1.fc.\1'),
    (rf'cls_head_finetune\.5\.{_STATE}', r'head.layers.1.norm.\1'),
    (r'cls_head_finetune\.8\.(weight|bias)', r'head.layers.2.fc.\1'),
]
_ENCODER = 'MAE_encoder.'
#: The released lists of Mamba and of Transformer blocks.
_LISTS = ('blocks', 'blocks_vit')


def find_point_task(state_dict: dict[str, Tensor]) -> str | None:
    """'pretraining' or 'classification' by the names of a released PointMAP model; None if it is none."""
    if any(key.startswith(_ENCODER) for key in state_dict):
        return 'pretraining'
    return 'classification' if any(key.startswith('encoder.first_conv.') for key in state_dict) else None


def convert_point_state_dict(
    state_dict: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Rename the parameters of a released PointMAP model, pretrained or a classifier.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.

    Returns:
        tuple: Our state dict of a ``MAP`` or of an ``ImageClassifier`` with the released backbone; our name for each
        released name; released names that were left out, those of the class token of a pretrained model.

    Raises:
        ValueError: If a name is not one of the released code's; the message lists all such names.
    """
    pretraining = find_point_task(state_dict) == 'pretraining'
    rules = [*_ENCODER_RULES, *(_PRETRAINING_RULES if pretraining else _CLASSIFICATION_RULES)]
    places = {
        name: [i for i, other in enumerate(point_layout(state_dict)) if other == letter]
        for name, letter in zip(_LISTS, 'MT', strict=True)
    }
    converted, names, left_out, unknown = {}, {}, [], []
    for key, value in state_dict.items():
        short = key.removeprefix(_ENCODER)
        if pretraining and short in ('cls_token', 'cls_pos'):
            left_out.append(key)
            continue
        name = next((m.expand(ours) for rule, ours in rules if (m := re.fullmatch(rule, short))), None)
        if name is None:
            unknown.append(key)
            continue
        name = re.sub(r'<(\w+) (\d+)>', lambda m: f'backbone.encoder.blocks.{places[m[1]][int(m[2])]}', name)
        names[key] = name
        converted |= _values(name, value)
    if unknown:
        raise ValueError(
            f'{len(unknown)} key(s) are not known to be of the released PointMAP code: {", ".join(unknown)}'
        )
    return join_directions(converted), names, left_out


def point_layout(state_dict: dict[str, Tensor]) -> str:
    """The order of the blocks of a released PointMAP model, a letter a block.

    Raises:
        ValueError: If a block is missing, or there are more Transformer blocks than places for them.
    """
    prefix = _ENCODER if find_point_task(state_dict) == 'pretraining' else ''
    return released_layout(*(count_blocks(state_dict, f'{prefix}blocks.{name}') for name in _LISTS))


def _values(name: str, value: Tensor) -> dict[str, Tensor]:
    if name.endswith(('local.scale', 'local.shift')):
        return {name: value.flatten()}
    if 'mixer.conv_weight' in name:
        return {name: value.squeeze(1)}  # The depthwise convolution's one input channel.
    if name == 'backbone.tokenizer.fc_group.weight':
        group, point = value.squeeze(-1).chunk(2, dim=1)
        return {name: group.clone(), name.replace('fc_group', 'fc_point'): point.clone()}
    if value.ndim == 3 and '_token' not in name and 'cls_' not in name:
        value = torch.squeeze(value, -1)  # A convolution over single points.
    return {name: value}
