"""The one file computes what the toolbox computes, from the toolbox alone takes operators, and learns."""

import ast
import re
from pathlib import Path

import pytest
import torch

from mmmap.evaluation import knn_accuracy
from mmmap.registry import MODELS


def toolbox_model(layout, size=8, patch=2, channels=1):
    """The model of the example, built of the toolbox's parts."""
    arch = dict(embed_dim=96, layout=layout, num_heads=4)
    return MODELS.build(
        dict(
            type='MAP',
            backbone=dict(type='MAPHybrid', arch=arch, img_size=size, patch_size=patch, in_channels=channels),
            neck=dict(type='RegionCausalDecoder', in_dim=96, grid=size // patch, embed_dim=64, depth=2, num_heads=4),
            head=dict(type='PixelReconstructionHead', in_dim=64, patch_size=patch, in_channels=channels),
        )
    )


def shaken(model):
    """The model with every weight off its first value, so that none is a 0 or a 1 that hides a mistake."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return model


# All cases of the joining rule: T in front, behind M, behind T; several M.
@pytest.mark.parametrize('layout', ['MMMT', 'M', 'TT', 'TMTTM'])
def test_loss_gradients_and_features_are_those_of_the_toolbox(example, layout):
    size, patch, channels = 12, 3, 2
    theirs = shaken(toolbox_model(layout, size, patch, channels))
    ours = example('map_in_one_file').MAP(size, patch, channels, layout=layout)
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(4, channels, size, size)
    hidden = ours.random_mask(4)

    expected, loss = theirs.reconstruct(images, hidden).loss(), ours.loss(images, hidden)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    expected.backward()
    loss.backward()
    others = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        torch.testing.assert_close(weight.grad, others[name].grad, rtol=1e-3, atol=1e-5, msg=name)
    torch.testing.assert_close(ours.backbone(images), theirs.backbone(images)[0].mean(dim=1), rtol=1e-5, atol=1e-5)


def test_toolbox_loads_weights_of_the_file(example):
    weights = example('map_in_one_file').MAP().state_dict()
    toolbox_model('MMMT').load_state_dict(weights)


def test_masks_hide_the_same_number_in_every_picture_but_not_the_same_patches(example):
    hidden = example('map_in_one_file').MAP().random_mask(50)
    assert (hidden.sum(dim=1) == 8).all()
    assert len(hidden.unique(dim=0)) > 40


def test_knn_is_that_of_the_toolbox(example):
    labels = torch.randint(10, (300,))
    features = torch.randn(300, 16) + 1.5 * torch.eye(10, 16)[labels]
    parts = features[:200], labels[:200], features[200:], labels[200:]
    ours = example('map_in_one_file').knn_accuracy(*parts)
    assert 20 < ours < 95
    assert ours == pytest.approx(knn_accuracy(*(x.numpy() for x in parts)), abs=1e-3)


def test_file_takes_only_operators_from_the_toolbox(example):
    tree = ast.parse(Path(example('map_in_one_file').__file__).read_text())
    names = {x.module for x in ast.walk(tree) if isinstance(x, ast.ImportFrom)}
    names |= {name.name for x in ast.walk(tree) if isinstance(x, ast.Import) for name in x.names}
    assert 'mmmap.ops' in names
    assert {name for name in names if name.startswith('mm')} == {'mmmap.ops'}


def test_it_learns_in_few_epochs_and_stores_its_weights(example, run_example, tmp_path):
    out = tmp_path / 'new' / 'weights.pth'
    printed = run_example('map_in_one_file', '--epochs', 2, '--out', out)
    before, after = map(float, re.findall(r'loss ([\d.]+)  kNN accuracy [\d.]+ %', printed))
    assert after < 0.5 * before
    example('map_in_one_file').MAP().load_state_dict(torch.load(out, weights_only=True))
