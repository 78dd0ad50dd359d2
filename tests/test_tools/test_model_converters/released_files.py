"""The converter, and weights such as the released code stores."""

import importlib.util
from pathlib import Path

import torch

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / 'tools' / 'model_converters' / 'official_to_mmmap.py'
_spec = importlib.util.spec_from_file_location('official_to_mmmap', SCRIPT)
converter = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(converter)

HEADS = dict(num_heads=4, decoder_num_heads=4)


def part(state_dict: dict, name: str) -> torch.Tensor:
    """A parameter, or one direction of it: ``name[0]``."""
    name, _, index = name.partition('[')
    return state_dict[name][int(index[0])] if index else state_dict[name]


def released_weights(width=16, layers=7, blocks=2, grid=3, decoder_width=8, decoder_depth=2, states=4) -> dict:
    """Random weights with the names and shapes of the released pretraining code."""
    inner, rank = 2 * width, -(-width // 16)
    shapes = {
        'cls_token': (1, 2, width),
        'pos_embed_cls': (1, 2, width),
        'pos_embed': (1, grid**2, width),
        'mask_token': (1, 1, decoder_width),
        'decoder_pos_embed_learned': (1, grid**2, decoder_width),
        'patch_embed.proj.weight': (width, 3, 16, 16),
        'patch_embed.proj.bias': (width,),
        'head.weight': (10, 2 * width),
        'head.bias': (10,),
        'norm_f.weight': (width,),
        'decoder_embed.weight': (decoder_width, width),
        'decoder_embed.bias': (decoder_width,),
        'decoder_norm.weight': (decoder_width,),
        'decoder_norm.bias': (decoder_width,),
        'ar_pred.weight': (768, decoder_width),
        'ar_pred.bias': (768,),
    }
    for i in range(layers):
        shapes[f'layers.{i}.norm.weight'] = (width,)
        mixer = f'layers.{i}.mixer.'
        shapes[f'{mixer}in_proj.weight'] = (2 * inner, width)
        shapes[f'{mixer}out_proj.weight'] = (width, inner)
        for log, suffix in (('A_log', ''), ('A_b_log', '_b')):
            shapes[mixer + log] = (inner, states)
            shapes[f'{mixer}D{suffix}'] = (inner,)
            shapes[f'{mixer}conv1d{suffix}.weight'] = (inner, 1, 4)
            shapes[f'{mixer}conv1d{suffix}.bias'] = (inner,)
            shapes[f'{mixer}x_proj{suffix}.weight'] = (rank + 2 * states, inner)
            shapes[f'{mixer}dt_proj{suffix}.weight'] = (inner, rank)
            shapes[f'{mixer}dt_proj{suffix}.bias'] = (inner,)

    def linear(name, outputs, inputs):
        shapes.update({f'{name}.weight': (outputs, inputs), f'{name}.bias': (outputs,)})

    def norm(name, size):
        shapes.update({f'{name}.weight': (size,), f'{name}.bias': (size,)})

    for i in range(blocks):
        norm(f'blocks.{i}.norm1', width)
        norm(f'blocks.{i}.norm2', width)
        linear(f'blocks.{i}.attn.qkv', 3 * width, width)
        linear(f'blocks.{i}.attn.proj', width, width)
        linear(f'blocks.{i}.mlp.fc1', 2 * width, width)
        linear(f'blocks.{i}.mlp.fc2', width, 2 * width)
    for i in range(decoder_depth):
        for name in ('norm2_1', 'norm2_2', 'norm2'):
            norm(f'decoder_blocks.{i}.{name}', decoder_width)
        linear(f'decoder_blocks.{i}.attn2.q', decoder_width, decoder_width)
        linear(f'decoder_blocks.{i}.attn2.kv', 2 * decoder_width, decoder_width)
        linear(f'decoder_blocks.{i}.attn2.proj', decoder_width, decoder_width)
        linear(f'decoder_blocks.{i}.mlp.fc1', 4 * decoder_width, decoder_width)
        linear(f'decoder_blocks.{i}.mlp.fc2', decoder_width, 4 * decoder_width)
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def classifier_weights(registers=2, reduction=1, width=16, **options) -> dict:
    """Random weights with the names and shapes of Mamba-R's classifier, or with ``blocks`` of one with MAP's blocks."""
    weights = released_weights(width=width, **(dict(blocks=0) | options))
    weights = {name: value for name, value in weights.items() if not name.startswith(('decoder', 'ar_pred', 'mask'))}
    joined = registers * width // reduction
    shapes = {'cls_token': (1, registers, width), 'pos_embed_cls': (1, registers, width), 'head.weight': (10, joined)}
    if reduction > 1:
        shapes |= {'neck.weight': (width // reduction, width), 'norm_neck.weight': (joined,)}
    return weights | {name: torch.randn(shape) for name, shape in shapes.items()}


CLASSIFIER_KEYS = {'cls_token', 'pos_embed_cls', 'head.weight', 'head.bias'}
