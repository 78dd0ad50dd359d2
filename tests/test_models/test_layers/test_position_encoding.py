import copy

import numpy as np
import pytest
import torch
from torch import nn

from mmmap.models.layers import CoordinatePositionEncoding, LearnedPositionEmbedding


@pytest.mark.parametrize('name', ['8to14', '14to12', '14to24'])
def test_resizing_equals_the_released_code(name, data_dir):
    stored = np.load(data_dir / 'pos_interp.npz')
    source, target = map(int, name.split('to'))
    weight = torch.from_numpy(stored[f'in_{name}']).unflatten(1, (source, source))
    expected = torch.from_numpy(stored[f'out_{name}'])

    loaded = LearnedPositionEmbedding(target, weight.shape[-1])
    loaded.load_state_dict(dict(weight=weight))
    torch.testing.assert_close(loaded((target, target)).detach(), expected, rtol=0, atol=1e-6)

    resized = LearnedPositionEmbedding(source, weight.shape[-1])
    resized.load_state_dict(dict(weight=weight))
    torch.testing.assert_close(resized((target, target)).detach(), expected, rtol=0, atol=1e-6)
    assert torch.equal(resized.weight, weight)


@pytest.mark.parametrize('grid', [(3, 5), (1, 7), (7, 1), (1, 1), (12, 2)])
def test_other_grids(grid):
    embedding = LearnedPositionEmbedding((4, 6), 8)
    out = embedding(grid)
    assert out.shape == (1, grid[0] * grid[1], 8)
    out.sum().backward()
    assert embedding.weight.grad.abs().sum() > 0


def test_rows_and_columns_are_not_swapped():
    embedding = LearnedPositionEmbedding((2, 3), 1)
    with torch.no_grad():
        embedding.weight.copy_(torch.tensor([[0.0, 0, 0], [1, 1, 1]])[None, ..., None])
    assert embedding((2, 3)).flatten().tolist() == [0, 0, 0, 1, 1, 1]
    wide = embedding((2, 9)).detach().view(2, 9)
    torch.testing.assert_close(wide, torch.tensor([[0.0] * 9, [1.0] * 9]))
    other = LearnedPositionEmbedding((2, 9), 1)
    other.load_state_dict(embedding.state_dict())
    assert torch.equal(other.weight[0, ..., 0], wide)


def test_loading_leaves_the_checkpoint_as_it_is():
    state_dict = dict(weight=torch.randn(1, 4, 4, 8))
    LearnedPositionEmbedding(2, 8).load_state_dict(state_dict)
    assert state_dict['weight'].shape == (1, 4, 4, 8)


def test_a_copy_resizes_for_itself():
    model = nn.Sequential(LearnedPositionEmbedding(4, 8))
    twin = copy.deepcopy(model)
    twin[0].weight = nn.Parameter(torch.zeros(1, 2, 6, 8))
    twin.load_state_dict({'0.weight': torch.ones(1, 3, 3, 8)})
    torch.testing.assert_close(twin[0].weight, torch.ones(1, 2, 6, 8))


def test_half_precision_weights_load():
    embedding = LearnedPositionEmbedding(2, 8)
    embedding.load_state_dict(dict(weight=torch.ones(1, 4, 4, 8, dtype=torch.float16)))
    assert embedding.weight.dtype == torch.float32
    torch.testing.assert_close(embedding.weight, torch.ones(1, 2, 2, 8))


@pytest.mark.parametrize('shape', [(1, 4, 4, 6), (1, 16, 8), (16, 8)])
def test_another_width_or_form_is_an_error(shape):
    with pytest.raises(RuntimeError, match='weight'):
        LearnedPositionEmbedding(4, 8).load_state_dict(dict(weight=torch.zeros(shape)))


@pytest.mark.parametrize('grid', [0, (4,), (4, 4, 4), (4, -1), 4.0, (4, 4.5)])
def test_wrong_grids_are_named(grid):
    with pytest.raises(ValueError, match='grid='):
        LearnedPositionEmbedding(grid, 8)


def test_one_encoding_serves_a_plane_and_space():
    encoding = CoordinatePositionEncoding(8)
    plane = torch.randn(2, 5, 2)
    space = torch.cat([plane, torch.zeros(2, 5, 1)], dim=-1)
    assert torch.equal(encoding(plane), encoding(space))
    assert not torch.allclose(encoding(plane), encoding(space + torch.tensor([0, 0, 1.0])))
    encoding(plane).sum().backward()
    gradient = encoding.fc1.weight.grad.abs().sum(dim=0)
    assert (gradient[:2] > 0).all() and gradient[2] == 0
    with pytest.raises(ValueError, match='coords of 3 dimensions: the encoding has num_dims=2'):
        CoordinatePositionEncoding(8, num_dims=2)(space)
