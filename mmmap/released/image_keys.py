"""The parameter names of the released MAP and Mamba-R code, and ours."""

import math
import re

from torch import Tensor

from .key_renaming import Rules, rename

#: The released lists of Mamba and of Transformer blocks.
LISTS = ('layers', 'blocks')
_ENCODER_RULES: Rules = [
    (r'pos_embed', r'backbone.pos_embed.weight'),
    (r'patch_embed\.proj\.(weight|bias)', r'backbone.patch_embed.\1'),
    (r'layers\.(\d+)\.norm\.weight', r'<layers \1>.norm.weight'),
    (r'layers\.(\d+)\.mixer\.(in|out)_proj\.weight', r'<layers \1>.mixer.\2_proj.weight'),
    (r'layers\.(\d+)\.mixer\.A_log', r'<layers \1>.mixer.A_log[0]'),
    (r'layers\.(\d+)\.mixer\.A_b_log', r'<layers \1>.mixer.A_log[1]'),
    (r'layers\.(\d+)\.mixer\.D', r'<layers \1>.mixer.D[0]'),
    (r'layers\.(\d+)\.mixer\.D_b', r'<layers \1>.mixer.D[1]'),
    (r'layers\.(\d+)\.mixer\.conv1d\.(weight|bias)', r'<layers \1>.mixer.conv_\2[0]'),
    (r'layers\.(\d+)\.mixer\.conv1d_b\.(weight|bias)', r'<layers \1>.mixer.conv_\2[1]'),
    (r'layers\.(\d+)\.mixer\.(x_proj|dt_proj)\.(weight|bias)', r'<layers \1>.mixer.\2_\3[0]'),
    (r'layers\.(\d+)\.mixer\.(x_proj|dt_proj)_b\.(weight|bias)', r'<layers \1>.mixer.\2_\3[1]'),
    (r'blocks\.(\d+)\.((?:norm[12]|attn\.(?:qkv|proj)|mlp\.fc[12])\.(?:weight|bias))', r'<blocks \1>.\2'),
    (r'norm_f\.weight', r'backbone.encoder.norm.weight'),
]
#: The parameters that only one task uses. A released MAP checkpoint holds both, a Mamba-R classifier has no decoder.
_TASK_RULES: dict[str, Rules] = {
    'pretraining': [
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
    ],
    'classification': [
        (r'cls_token', r'backbone.register_tokens'),
        (r'pos_embed_cls', r'backbone.register_pos_embed'),
        (r'neck\.weight', r'neck.proj.weight'),
        (r'norm_neck\.weight', r'neck.norm.weight'),
        (r'head\.(weight|bias)', r'head.fc.\1'),
    ],
}
TASKS = tuple(_TASK_RULES)


def find_task(state_dict: dict[str, Tensor], task: str | None = None) -> str:
    """The task of a released checkpoint, 'pretraining' or 'classification'.

    A checkpoint may hold both: without ``task`` it is pretraining if there is a decoder.

    Raises:
        ValueError: If ``task`` is unknown, or None and the checkpoint is of neither.
    """
    if task is not None:
        if task not in TASKS:
            raise ValueError(f'task={task!r}: must be one of {TASKS}')
        return task
    if any(re.fullmatch(rule, key) for key in state_dict for rule, _ in _TASK_RULES['pretraining']):
        return 'pretraining'
    if 'cls_token' in state_dict:
        return 'classification'
    raise ValueError(
        'not a MAP pretraining checkpoint, it has no decoder_*, ar_pred.* or mask_token, '
        'and not a classifier either, it has no cls_token'
    )


def grid_side(length: int, key: str) -> int:
    """Rows of the square grid of this many positions; a ValueError names ``key`` if there is none."""
    side = math.isqrt(length)
    if side * side != length:
        raise ValueError(f'{key}: {length} positions are not a square grid')
    return side


def convert_state_dict(
    state_dict: dict[str, Tensor], task: str | None = None
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Rename the parameters of a released checkpoint.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.
        task (str, optional): See :func:`find_task`.

    Returns:
        tuple: Our state dict of a ``MAP`` or an ``ImageClassifier``; our name for each released name; the released
        names that only the other task uses, which were left out.

    Raises:
        ValueError: If a name is not one of the released code's; the message lists all such names.
    """
    task = find_task(state_dict, task)
    others = [rule for other, rules in _TASK_RULES.items() if other != task for rule in rules]
    return rename(state_dict, _ENCODER_RULES + _TASK_RULES[task], others, LISTS, _convert, 'MAP or Mamba-R')


def _convert(key: str, name: str, value: Tensor) -> dict[str, Tensor]:
    if key in ('pos_embed', 'decoder_pos_embed_learned'):
        side = grid_side(value.shape[1], key)
        value = value.reshape(1, side, side, -1)
    elif key.endswith(('conv1d.weight', 'conv1d_b.weight')):
        value = value.squeeze(1)  # The depthwise convolution's one input channel.
    return {name: value}
