"""The parameter names of the released PointMAP code, and ours."""

from torch import Tensor

from .key_renaming import Rules, find_layout, rename

#: In front of the encoder's names in a pretrained model.
PREFIX = 'MAE_encoder.'
#: The released lists of Mamba and of Transformer blocks.
_LISTS = ('blocks.blocks', 'blocks.blocks_vit')
_STATE = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_ENCODER_RULES: Rules = [
    (rf'encoder\.first_conv\.1\.{_STATE}', r'backbone.tokenizer.norm1.\1'),
    (rf'encoder\.second_conv\.1\.{_STATE}', r'backbone.tokenizer.norm2.\1'),
    (r'encoder\.first_conv\.0\.(weight|bias)', r'backbone.tokenizer.fc1.\1'),
    (r'encoder\.first_conv\.3\.(weight|bias)', r'backbone.tokenizer.fc2.\1'),
    (r'encoder\.second_conv\.0\.(weight|bias)', r'backbone.tokenizer.fc_group.\1'),
    (r'encoder\.second_conv\.3\.(weight|bias)', r'backbone.tokenizer.fc3.\1'),
    (r'pos_embed\.0\.(weight|bias)', r'backbone.pos_embed.fc1.\1'),
    (r'pos_embed\.2\.(weight|bias)', r'backbone.pos_embed.fc2.\1'),
    (r'(blocks\.blocks\w*)\.(\d+)\.norm1\.(weight|bias)', r'<\1 \2>.local.norm.\3'),
    (r'(blocks\.blocks\w*)\.(\d+)\.norm2\.(weight|bias)', r'<\1 \2>.norm.\3'),
    (r'(blocks\.blocks\w*)\.(\d+)\.lfa\.lga\.affine_alpha_feat', r'<\1 \2>.local.scale'),
    (r'(blocks\.blocks\w*)\.(\d+)\.lfa\.lga\.affine_beta_feat', r'<\1 \2>.local.shift'),
    (r'(blocks\.blocks\w*)\.(\d+)\.lfa\.mlp\.share_mlp\.(weight|bias)', r'<\1 \2>.local.proj.\3'),
    (r'(blocks\.blocks\w*)\.(\d+)\.lfa\.pre_norm_ft\.(weight|bias)', r'<\1 \2>.local.norm_pooled.\3'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.(in|out)_proj\.weight', r'<\1 \2>.mixer.\3_proj.weight'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.(A_log|D)', r'<\1 \2>.mixer.\3[0]'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.A_b_log', r'<\1 \2>.mixer.A_log[1]'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.D_b', r'<\1 \2>.mixer.D[1]'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.conv1d\.(weight|bias)', r'<\1 \2>.mixer.conv_\3[0]'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.conv1d_b\.(weight|bias)', r'<\1 \2>.mixer.conv_\3[1]'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.(x_proj|dt_proj)\.(weight|bias)', r'<\1 \2>.mixer.\3_\4[0]'),
    (r'(blocks\.blocks)\.(\d+)\.mixer\.(x_proj|dt_proj)_b\.(weight|bias)', r'<\1 \2>.mixer.\3_\4[1]'),
    (r'(blocks\.blocks_vit)\.(\d+)\.mixer\.(.+)', r'<\1 \2>.transformer.\3'),
    (r'norm\.(weight|bias)', r'backbone.encoder.norm.\1'),
]
_PRETRAINING_RULES: Rules = [
    (r'mask_token', r'neck.mask_token'),
    (r'decoder_pos_embed\.0\.(weight|bias)', r'neck.pos_embed.fc1.\1'),
    (r'decoder_pos_embed\.2\.(weight|bias)', r'neck.pos_embed.fc2.\1'),
    (r'MAE_decoder\.(blocks\.\d+\..+|norm\.(?:weight|bias))', r'neck.\1'),
    (r'increase_dim\.0\.(weight|bias)', r'head.proj.\1'),
]
_CLASSIFICATION_RULES: Rules = [
    (r'cls_token', r'backbone.cls_token'),
    (r'cls_pos', r'backbone.cls_pos_embed'),
    (r'cls_head_finetune\.0\.(weight|bias)', r'head.layers.0.fc.\1'),
    (rf'cls_head_finetune\.1\.{_STATE}', r'head.layers.0.norm.\1'),
    (r'cls_head_finetune\.4\.(weight|bias)', r'head.layers.1.fc.\1'),
    (rf'cls_head_finetune\.5\.{_STATE}', r'head.layers.1.norm.\1'),
    (r'cls_head_finetune\.8\.(weight|bias)', r'head.layers.2.fc.\1'),
]
#: A pretrained model never uses its class token.
_UNUSED: Rules = [('cls_token', ''), ('cls_pos', '')]


def find_point_task(state_dict: dict[str, Tensor]) -> str | None:
    """'pretraining' or 'classification' by the names of a released PointMAP model; None if it is none."""
    if any(key.startswith(PREFIX) for key in state_dict):
        return 'pretraining'
    return 'classification' if any(key.startswith('encoder.first_conv.') for key in state_dict) else None


def convert_point_state_dict(
    state_dict: dict[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    """Rename the parameters of a released PointMAP model, pretrained or a classifier.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.

    Returns:
        tuple: Our state dict of a ``MAP`` or an ``ImageClassifier`` with the released backbone; our name for each
        released name; the released names of the class token of a pretrained model, which were left out.

    Raises:
        ValueError: If a name is not one of the released code's; the message lists all such names.
    """
    pretraining = find_point_task(state_dict) == 'pretraining'
    return rename(
        state_dict,
        _ENCODER_RULES + (_PRETRAINING_RULES if pretraining else _CLASSIFICATION_RULES),
        _UNUSED if pretraining else [],
        _LISTS,
        _convert,
        'PointMAP',
        PREFIX if pretraining else '',
    )


def point_layout(state_dict: dict[str, Tensor]) -> str:
    """The order of the blocks of a released PointMAP model, see :func:`~mmmap.released.key_renaming.find_layout`."""
    prefix = PREFIX if find_point_task(state_dict) == 'pretraining' else ''
    return find_layout(state_dict, *(prefix + name for name in _LISTS))


def _convert(_key: str, name: str, value: Tensor) -> dict[str, Tensor]:
    if name.endswith(('local.scale', 'local.shift')):
        return {name: value.flatten()}
    if 'mixer.conv_weight' in name:
        return {name: value.squeeze(1)}  # The depthwise convolution's one input channel.
    if name == 'backbone.tokenizer.fc_group.weight':
        group, point = value.squeeze(-1).chunk(2, dim=1)
        return {name: group.clone(), name.replace('fc_group', 'fc_point'): point.clone()}
    if value.ndim == 3 and '_token' not in name and 'cls_' not in name:
        value = value.squeeze(-1)  # A convolution over single points.
    return {name: value}
