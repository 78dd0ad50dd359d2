import json

import pytest
import torch

from mmmap.models.layers import GridSerialization, grid_coords, register_order

CASES = ['14x14_n12', '14x14_n16', '4x4_n1', '4x4_n3', '4x4_n4', '5x5_n4', '8x8_n12', '6x6_n2', '3x5_n2']


@pytest.mark.parametrize('case', CASES)
def test_register_order_equals_the_released_code(case, data_dir):
    facts = json.loads((data_dir / 'released_facts.json').read_text())['register_order']
    assert sorted(facts) == sorted(CASES)
    grid, registers = case.split('_n')
    rows, columns = map(int, grid.split('x'))
    order, _, positions = register_order(rows * columns, int(registers))
    assert order.tolist() == facts[case]['token_idx']
    assert positions.tolist() == facts[case]['cls_positions']


@pytest.mark.parametrize(
    ('tokens', 'registers'), [(7, 0), (7, 1), (7, 3), (7, 6), (7, 7), (7, 20), (1, 1), (1, 5), (196, 12)]
)
def test_positions_find_tokens_and_registers_again(tokens, registers):
    order, token_positions, register_positions = register_order(tokens, registers)
    assert sorted(order.tolist()) == list(range(tokens + registers))
    assert order[token_positions].tolist() == list(range(tokens))
    assert order[register_positions].tolist() == list(range(tokens, tokens + registers))


@pytest.mark.parametrize('grid', [(2, 3), (1, 4), (4, 1), (1, 1)])
def test_coords_are_in_raster_order(grid):
    rows, columns = grid
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    expected = torch.tensor([((r + 0.5) / rows, (c + 0.5) / columns) for r, c in cells])
    torch.testing.assert_close(grid_coords(grid), expected)


REGION = {
    'row': lambda r, c, columns: r,
    'column': lambda r, c, columns: c,
    'token': lambda r, c, columns: r * columns + c,
    'block': lambda r, c, columns: r // 2 * -(-columns // 3) + c // 3,
}


@pytest.mark.parametrize('kind', REGION)
@pytest.mark.parametrize('grid', [(2, 3), (5, 7), (1, 4), (4, 1), (1, 1)])
def test_regions_and_order_of_a_grid(kind, grid):
    rows, columns = grid
    rule = GridSerialization(dict(type='block', size=(2, 3)) if kind == 'block' else kind)
    regions, order, size = rule.regions(grid), rule.order(grid), rule.region_size(grid)
    assert regions.dtype == torch.int64
    assert regions.tolist() == [REGION[kind](r, c, columns) for r in range(rows) for c in range(columns)]
    assert sorted(set(regions.tolist())) == list(range(int(regions.max()) + 1))
    # Region by region, and within a region in raster order.
    expected = sorted(range(rows * columns), key=lambda i: (regions[i].item(), i))
    assert (list(range(rows * columns)) if order is None else order.tolist()) == expected
    if size is not None:
        assert regions.tolist() == [i // size for i in range(rows * columns)]


@pytest.mark.parametrize(
    'rule',
    [
        'rows',
        dict(size=2),
        dict(type='row', size=2),
        dict(type='block'),
        dict(type='block', size=0),
        dict(type='block', size='2'),
        dict(type='block', size=(2, 2, 2)),
        dict(type='block', size=2, step=1),
    ],
)
def test_unknown_rules_are_refused(rule):
    with pytest.raises(ValueError, match='regions='):
        GridSerialization(rule, 'regions')
