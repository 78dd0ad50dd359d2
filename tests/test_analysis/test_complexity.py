"""Counts of a tiny model by hand."""

import pytest
import torch

from mmmap.analysis import count_complexity
from mmmap.registry import MODELS

# Width, inner width, states, taps, rank of the step sizes.
C, E, N, K, R = 32, 64, 4, 4, 2


def mixer_flops(tokens):
    """One mixer: projections, convolutions in both directions, scans in both and their gate."""
    projections = 2 * tokens * (C * 2 * E + E * C) + 2 * 2 * tokens * (E * (R + 2 * N) + R * E)
    convolution = 2 * tokens * E * (2 * K + 1 + 4)
    scan = tokens * E * (2 * (7 * N + 1 + 2) + 2 + 5)
    return projections, convolution, scan


def transformer_flops(tokens, hidden):
    return 2 * tokens * (C * 3 * C + C * C + 2 * C * hidden) + 2 * 2 * tokens * tokens * C


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_pretraining_counts_the_visible_tokens(map_cfg, device):
    with torch.device(device):
        model = MODELS.build(map_cfg('MMT', attention='full', masking=dict(type='RandomMasking', ratio=0.75)))
        parts = count_complexity(model, torch.zeros(2, 3, 64, 64))
    assert sum(part.parameters for part in parts.values()) == sum(p.numel() for p in model.parameters())
    images, all_, visible = 2, 16, 4
    projections, convolution, scan = mixer_flops(visible)
    decoder = all_ * 2 * (4 * C * C + 2 * C * 4 * C) + 2 * 2 * all_ * all_ * C  # of a block
    expected = {
        'embedding': 2 * all_ * 3 * 16 * 16 * C,
        'Mamba: projections': 2 * projections,
        'Mamba: convolution': 2 * convolution,
        'Mamba: scan': 2 * scan,
        'Transformer blocks': transformer_flops(visible, 2 * C),
        'decoder or neck': 2 * visible * C * C + 2 * decoder,
        'head': 2 * all_ * C * 3 * 16 * 16,
        'rest': 0,
    }
    assert {name: part.flops for name, part in parts.items()} == {k: images * n for k, n in expected.items()}
    mixer = {
        'Mamba: projections': 2 * C * E + E * C + 2 * (E * (R + 2 * N) + R * E + E),
        'Mamba: convolution': 2 * E * (K + 1),
        'Mamba: scan': 2 * E * (N + 1),
    }
    for name, parameters in mixer.items():
        assert parts[name].parameters == 2 * parameters, name
    assert parts['embedding'].parameters == 3 * 16 * 16 * C + C + 16 * C
    assert parts['rest'].parameters == 3 * C  # An RMSNorm for each M block and the last.


def test_a_classifier_counts_all_tokens_and_registers():
    cfg = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(
            type='MAPHybrid',
            arch=dict(embed_dim=C, layout='MT', num_heads=4, d_state=N),
            img_size=64,
            out_type='avg_featmap',
            num_registers=3,
        ),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=C),
    )
    with torch.device('meta'):
        parts = count_complexity(MODELS.build(cfg), torch.zeros(1, 3, 64, 96))
    tokens = 4 * 6 + 3
    assert parts['Mamba: scan'].flops == mixer_flops(tokens)[2]
    assert parts['Transformer blocks'].flops == transformer_flops(tokens, 2 * C)
    assert parts['head'] == type(parts['head'])(parameters=10 * C + 10, flops=2 * 10 * C)
    assert parts['decoder or neck'].parameters == parts['decoder or neck'].flops == 0
    assert parts['embedding'].parameters == 3 * 16 * 16 * C + C + 16 * C + 2 * 3 * C
