"""Register features of MAPHybrid against the released Mamba-R classifier and its composite with MAP's blocks."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmmap.models.backbones import MAPHybrid
from mmmap.models.layers import register_order
from mmmap.utils.released_checkpoint import convert_state_dict, released_layout

FOLDERS = [Path(__file__).parents[1] / 'data', *map(Path, filter(None, [os.environ.get('MMMAP_GOLDEN_DIR')]))]
FILES = list({path.name: path for folder in reversed(FOLDERS) for path in folder.glob('*cls_*.npz')}.values())
FILES = [path for path in FILES if path.name.startswith(('cls_', 'mapcls_'))]  # Images, not point clouds.


@pytest.mark.parametrize('path', sorted(FILES), ids=lambda path: path.stem)
def test_register_features(path):
    stored = np.load(path)
    ctor = json.loads(bytes(stored['meta_json']))['ctor']
    weights = {key[3:]: torch.from_numpy(stored[key]) for key in stored.files if key.startswith('sd/')}
    num_transformer = len({key.split('.')[1] for key in weights if key.startswith('blocks.')})
    model = MAPHybrid(
        arch=dict(
            embed_dim=ctor['embed_dim'],
            layout=released_layout(ctor['depth'], num_transformer),
            num_heads=ctor.get('num_heads', 1),
        ),
        img_size=ctor['img_size'],
        patch_size=ctor['patch_size'],
        num_registers=ctor['num_cls_tokens'],
    ).eval()
    converted, _, left_out = convert_state_dict(weights)
    state_dict = {name.removeprefix('backbone.'): value for name, value in converted.items()}
    state_dict.update(register_tokens=weights['cls_token'], register_pos_embed=weights['pos_embed_cls'])
    assert {'cls_token', 'pos_embed_cls', 'head.weight', 'head.bias'} <= set(left_out)
    model.load_state_dict(state_dict, strict=True)

    with torch.no_grad():
        (features,) = model(torch.from_numpy(stored['in/imgs']))
        assert features.shape == (2, ctor['num_cls_tokens'], ctor['embed_dim'])
        if 'neck.weight' in weights:  # Narrows each register before they are joined.
            features = F.linear(features, weights['neck.weight'])
            joined = features.flatten(1)
            features = F.rms_norm(joined, joined.shape[-1:], weights['norm_neck.weight'], eps=1e-5)
        features = features.flatten(1)
        logits = F.linear(features, weights['head.weight'], weights['head.bias'])
    for ours, key in ((features, 'out/features'), (logits, 'out/logits')):
        released = torch.from_numpy(stored[key])
        assert ours.shape == released.shape
        assert (ours - released).abs().max() <= 5e-5 * released.abs().max(), key
    order, _, positions = register_order(stored['token_idx'].size - ctor['num_cls_tokens'], ctor['num_cls_tokens'])
    assert order.tolist() == stored['token_idx'].tolist()
    assert positions.tolist() == stored['cls_positions'].tolist()
