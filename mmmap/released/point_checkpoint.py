"""Infers the model in a released PointMAP checkpoint from the shapes of its parameters."""

import math

from torch import Tensor

from mmmap.models.backbones.point_map_hybrid import POINT_ARCHS

from .image_checkpoint import check_needed, infer_arch, named_arch
from .key_renaming import count_blocks
from .point_keys import PREFIX, find_point_task, point_layout

#: The parameters of the encoder that tell the architecture, without ``PREFIX``, and how many dimensions each has.
_NEEDED_OF_ENCODER = {
    'encoder.first_conv.0.weight': 3,
    'encoder.second_conv.3.weight': 3,
    'blocks.blocks.0.mixer.A_log': 2,
    'blocks.blocks.0.mixer.conv1d.weight': 3,
}
_NEEDED_OF_TRANSFORMER = {'blocks.blocks_vit.0.mixer.mlp.fc1.weight': 2}
_NEEDED_OF_TASK = {
    'pretraining': {'MAE_decoder.blocks.0.mlp.fc1.weight': 2, 'increase_dim.0.weight': 3},
    'classification': {f'cls_head_finetune.{i}.weight': 2 for i in (0, 4, 8)},
}
_KINDS = {'pretraining': 'a PointMAP pretraining checkpoint', 'classification': 'a PointMAP classifier'}
_LOSSES = {'cdl2': 'l2', 'cdl1': 'l1'}


def infer_point_model_cfg(
    state_dict: dict[str, Tensor],
    num_heads: int | None = None,
    decoder_num_heads: int | None = None,
    num_groups: int = 64,
    group_size: int | None = None,
    local_neighbours: int = 4,
    bimamba_type: str = 'v4',
    loss: str = 'cdl2',
) -> dict:
    """Infer the config of the PointMAP model in a released checkpoint from the shapes.

    The arguments are what shapes do not tell. They default to Mamba3D's configs: PointMAP is built on its release.

    Args:
        state_dict (dict[str, Tensor]): The released parameters by name.
        num_heads (int, optional): Heads of the encoder's Transformer blocks. Defaults to the released 6.
        decoder_num_heads (int, optional): Heads of the decoder, if there is one. Defaults to the released 6.
        num_groups (int): The released ``num_group``. Defaults to 64.
        group_size (int, optional): Points of a group. Defaults to 32, and in pretraining to the points that the head
            predicts.
        local_neighbours (int): The released ``center_local_k``. Defaults to 4.
        bimamba_type (str): 'v4' for two scans, 'v2' for one: the parameters are the same. Defaults to 'v4'.
        loss (str): The loss of pretraining, 'cdl2' or 'cdl1'. Defaults to 'cdl2'.

    Returns:
        dict: A config of a ``MAP``, or of mmpretrain's ``ImageClassifier``, with ``released`` of the backbone.

    Raises:
        ValueError: If the checkpoint lacks a part of the model, or its shapes contradict each other or an argument.
    """
    if loss not in _LOSSES:
        raise ValueError(f'loss={loss!r}: must be one of {tuple(_LOSSES)}')
    task, layout = find_point_task(state_dict) or 'classification', point_layout(state_dict)
    prefix = PREFIX if task == 'pretraining' else ''
    needed = _NEEDED_OF_ENCODER | (_NEEDED_OF_TRANSFORMER if 'T' in layout else {})
    check_needed(state_dict, {prefix + key: ndim for key, ndim in needed.items()} | _NEEDED_OF_TASK[task], _KINDS[task])
    shapes = {key.removeprefix(prefix): tuple(value.shape) for key, value in state_dict.items()}
    embed_dim = shapes['encoder.second_conv.3.weight'][0]
    if task == 'pretraining':
        predicted = shapes['increase_dim.0.weight'][0]
        size = predicted // 3 if group_size is None else group_size
        if predicted != 3 * size:
            raise ValueError(f'increase_dim.0.weight: {predicted} outputs are not 3 for each of {size} points')
        group_size = size
    elif group_size is None:
        group_size = 32
    names = f'{prefix}blocks.blocks.0.mixer', f'{prefix}blocks.blocks_vit.0.mixer.mlp'
    backbone = dict(
        type='PointMAPHybrid',
        arch=named_arch(
            infer_arch(state_dict, layout, embed_dim, 6 if num_heads is None else num_heads, *names), POINT_ARCHS
        ),
        num_groups=num_groups,
        group_size=group_size,
        in_channels=shapes['encoder.first_conv.0.weight'][1],
        out_type='raw' if task == 'pretraining' else 'cls_max_mean',
        local_neighbours=local_neighbours,
        released=bimamba_type,
    )
    cfg = dict(backbone=backbone, data_preprocessor=dict(type='PointDataPreprocessor'))
    if task == 'classification':
        return dict(type='mmpretrain.ImageClassifier', **cfg, head=_classifier_head(shapes, embed_dim))
    if math.isqrt(num_groups) ** 2 != num_groups:
        raise ValueError(f'num_groups={num_groups}: not a square, which the released decoder needs')
    neck = dict(
        type='ReleasedPointDecoder',
        embed_dim=embed_dim,
        depth=count_blocks(state_dict, 'MAE_decoder.blocks'),
        num_heads=6 if decoder_num_heads is None else decoder_num_heads,
        mlp_ratio=shapes['MAE_decoder.blocks.0.mlp.fc1.weight'][0] / embed_dim,
    )
    head = dict(type='PointReconstructionHead', in_dim=embed_dim, group_size=group_size, loss_type=_LOSSES[loss])
    return dict(type='MAP', **cfg, neck=neck, head=head, masking=dict(type='RandomMasking', ratio=0.6))


def _classifier_head(shapes: dict[str, tuple], embed_dim: int) -> dict:
    classes, *widths = (shapes[f'cls_head_finetune.{i}.weight'][0] for i in (8, 0, 4))
    return dict(
        type='mmpretrain.StackedLinearClsHead',
        num_classes=classes,
        in_channels=2 * embed_dim,
        mid_channels=widths,
        dropout_rate=0.5,
        norm_cfg=dict(type='BN1d'),
        # Another default scope has a loss of this name, too.
        loss=dict(type='mmpretrain.CrossEntropyLoss'),
    )
