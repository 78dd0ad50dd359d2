import json

import pytest
import torch

from mmmap.models.layers import grid_coords, register_order, row_regions

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
def test_coords_and_regions_are_in_raster_order(grid):
    rows, columns = grid
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    coords, regions = grid_coords(grid), row_regions(grid)
    expected = torch.tensor([((r + 0.5) / rows, (c + 0.5) / columns) for r, c in cells])
    torch.testing.assert_close(coords, expected)
    assert regions.dtype == torch.int64
    assert regions.tolist() == [r for r, _ in cells]
