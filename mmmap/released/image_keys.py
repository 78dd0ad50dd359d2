"""The parameter names of the released MAP and Mamba-R code, and how they map to ours."""

import math
import re

import torch
from torch import Tensor

#: Released names (as patterns) and ours. ``{M}`` and ``{T}`` stand for the place in our one list of blocks of the
#: released ``layers[i]`` and ``blocks[i]``, ``\\1`` and so on for the pattern's groups; ``[0]`` and
#: ``[1]`` are the directions of a parameter that holds both.
_ENCODER_RULES = [
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
]
#: The parameters that only one task uses. A released MAP checkpoint holds both, a Mamba-R classifier has no decoder.
_TASK_RULES = {
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


def _compiled(rules: list[tuple[str, str]]) -> list[tuple[re.Pattern, str]]:
    return [(re.compile(pattern + r'\Z'), ours) for pattern, ours in rules]


_ENCODER_RULES = _compiled(_ENCODER_RULES)
_TASK_RULES = {task: _compiled(rules) for task, rules in _TASK_RULES.items()}


def find_task(state_dict: dict[str, Tensor], task: str | None = None) -> str:
    """The task of a released checkpoint by the names that it holds.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.
        task (str, optional): 'pretraining' or 'classification', for a checkpoint that holds both. None takes
            pretraining if there is a decoder and classification if there are only registers.

    Returns:
        str: 'pretraining' or 'classification'.

    Raises:
        ValueError: If ``task`` is neither of them, or None and the checkpoint is of neither.
    """
    if task is not None:
        if task not in TASKS:
            raise ValueError(f'task={task!r}: must be one of {TASKS}')
        return task
    if any(pattern.match(key) for key in state_dict for pattern, _ in _TASK_RULES['pretraining']):
        return 'pretraining'
    if 'cls_token' in state_dict:
        return 'classification'
    raise ValueError(
        'not a MAP pretraining checkpoint, it has no decoder_*, ar_pred.* or mask_token, '
        'and not a classifier either, it has no cls_token'
    )


def count_blocks(state_dict: dict[str, Tensor], module_list: str) -> int:
    """How many blocks of a released list, such as 'layers', there are.

    Raises:
        ValueError: If one between them is missing.
    """
    found = {int(m[1]) for key in state_dict if (m := re.match(rf'{re.escape(module_list)}\.(\d+)\.', key))}
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


def grid_side(length: int, key: str) -> int:
    """Rows of the square grid of so many positions; a ValueError names ``key`` if they are none."""
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
        tuple: Our state dict of a ``MAP`` or of an ``ImageClassifier``; our name for each released name; released names
        that were left out because only the other task uses them.

    Raises:
        ValueError: If a name is not one of the released code's; the message lists all such names.
    """
    task = find_task(state_dict, task)
    wanted = _ENCODER_RULES + _TASK_RULES[task]
    others = [pattern for other, rules in _TASK_RULES.items() if other != task for pattern, _ in rules]
    layout = released_layout(count_blocks(state_dict, 'layers'), count_blocks(state_dict, 'blocks'))
    places = {letter: [i for i, other in enumerate(layout) if other == letter] for letter in 'MT'}
    converted, names, left_out, unknown = {}, {}, [], []
    for key, value in state_dict.items():
        found = next(((match, ours) for pattern, ours in wanted if (match := pattern.match(key))), None)
        if found:
            match, ours = found
            name = match.expand(ours)
            for letter in 'MT':
                if f'{{{letter}}}' in name:
                    name = name.replace(f'{{{letter}}}', str(places[letter][int(match[1])]))
            names[key] = name
            converted[name] = _reshape(key, value)
        elif any(pattern.match(key) for pattern in others):
            left_out.append(key)
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f'{len(unknown)} key(s) are not known to be of the released MAP or Mamba-R code: {", ".join(unknown)}'
        )
    return join_directions(converted), names, left_out


def join_directions(parts: dict[str, Tensor]) -> dict[str, Tensor]:
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
        side = grid_side(value.shape[1], key)
        return value.reshape(1, side, side, -1)
    if key.endswith(('conv1d.weight', 'conv1d_b.weight')):
        return value.squeeze(1)  # The depthwise convolution's one input channel.
    return value
