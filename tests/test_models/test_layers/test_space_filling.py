"""The curves and the order of points."""

import pytest
import torch

from mmmap.models.layers import GridSerialization, PointSerialization
from mmmap.models.layers.space_filling import hilbert_codes, morton_codes, raster_codes

FULL = [(2, 1), (2, 2), (2, 4), (3, 1), (3, 2), (3, 3)]


def full_grid(dims: int, bits: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(2**bits)] * dims)


@pytest.mark.parametrize(('dims', 'bits'), FULL)
@pytest.mark.parametrize('curve', [hilbert_codes, morton_codes, raster_codes])
def test_every_cell_has_a_code_of_its_own(curve, dims, bits):
    codes = curve(full_grid(dims, bits), bits)
    assert sorted(codes.tolist()) == list(range(2 ** (dims * bits)))


@pytest.mark.parametrize(('dims', 'bits'), FULL)
def test_a_hilbert_curve_steps_to_a_neighbour(dims, bits):
    cells = full_grid(dims, bits)
    steps = cells[hilbert_codes(cells, bits).argsort()].diff(dim=0).abs().sum(dim=1)
    assert (steps == 1).all()


def test_morton_by_hand():
    cells = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [0, 2], [2, 0], [3, 3]])
    assert morton_codes(cells, 2).tolist() == [0, 1, 2, 3, 4, 8, 15]


@pytest.mark.parametrize('rule', ['hilbert', 'morton'])
@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (1, 4), (1, 1)])
def test_a_curve_through_a_grid_of_patches(rule, grid):
    serialization = GridSerialization(rule)
    order, regions = serialization.order(grid), serialization.regions(grid)
    assert serialization.region_size(grid) == (None if grid[0] > 1 else grid[1])  # one row: one region
    assert sorted(order.tolist()) == list(range(grid[0] * grid[1]))
    assert regions[order].tolist() == [i // grid[1] for i in range(grid[0] * grid[1])]
    if rule == 'hilbert' and grid == (4, 4):
        cells = torch.stack([order // 4, order % 4], dim=1)
        assert (cells.diff(dim=0).abs().sum(dim=1) == 1).all()


RULES = ['hilbert', 'morton', 'raster', 'column', dict(type='block', size=2), dict(type='axis', axis=1)]


@pytest.mark.parametrize('rule', RULES, ids=str)
def test_order_of_points_follows_the_points_wherever_the_cloud_lies(rule):
    coords = torch.rand(3, 50, 3)
    rule = PointSerialization(rule)
    order = rule.order(coords)
    assert torch.equal(order.sort(dim=1).values, torch.arange(50).expand(3, -1))
    assert torch.equal(rule.order(coords * 4 - 1), order)
    assert torch.equal(rule.order(coords[1:2]), order[1:2])


def test_order_of_points_by_hand():
    cells = torch.cartesian_prod(*[torch.arange(2.0)] * 3)[None]
    axis = PointSerialization(dict(type='axis', axis=2)).order(cells)[0]
    assert axis.tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    assert PointSerialization('raster').order(cells)[0].tolist() == list(range(8))
    assert PointSerialization('column').order(cells)[0].tolist() == [0, 4, 2, 6, 1, 5, 3, 7]


def test_blocks_of_cells_come_one_after_the_other():
    coords = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0), torch.zeros(1))[None]
    order = PointSerialization(dict(type='block', size=4)).order(coords)[0]
    blocks = order // 8 // 4 * 2 + order % 8 // 4
    assert blocks.tolist() == sorted(blocks.tolist())


def test_points_at_one_place_keep_their_order():
    assert PointSerialization('hilbert').order(torch.ones(2, 5, 3)).tolist() == [list(range(5))] * 2


UNKNOWN = [
    'row',
    'block',
    'axis',
    dict(type='hilbert', size=2),
    dict(type='axis', axis=3),
    dict(type='hilbert', bits=0),
    dict(type='block', size=0),
    dict(type='hilbert', other=1),
]


@pytest.mark.parametrize('rule', UNKNOWN, ids=str)
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ValueError, match='order_rule='):
        PointSerialization(rule, 'order_rule')
