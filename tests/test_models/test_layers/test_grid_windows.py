"""Windows over a grid of patches: which patches share one, which blocks attend by them, and what comes out."""

from dataclasses import replace

import pytest
import torch

from mmmap.models.layers import GridSerialization, GridWindows, HybridEncoder, TransformerBlock
from mmmap.models.layers.grid_windows import windowed_blocks
from mmmap.models.layers.region_attention import attend

GRIDS = [(7, 5), (6, 6), (3, 9), (9, 2), (1, 8), (4, 3)]
RULES = ['row', 'column', dict(type='block', size=2)]


def shared(grid: tuple[int, int], size: int, rule) -> torch.Tensor:
    """True where two tokens of the sequence lie in one window, by brute force."""
    rows, columns = grid
    window = torch.tensor([(r // size) * 1000 + c // size for r in range(rows) for c in range(columns)])
    order = GridSerialization(rule).order(grid)
    window = window if order is None else window[order]
    return window[:, None] == window[None, :]


@pytest.mark.parametrize('rule', RULES, ids=str)
@pytest.mark.parametrize('size', [1, 2, 3, 4])
@pytest.mark.parametrize('grid', GRIDS, ids=str)
def test_equals_masked_attention(grid, size, rule):
    torch.manual_seed(1)
    windows = GridWindows(grid, size, GridSerialization(rule).order(grid))
    x = torch.randn(2, grid[0] * grid[1], 3, 16, requires_grad=True)
    assert sum(length for _, length in windows.sizes) == x.shape[1]
    out = windows(*x[:, windows.order].split([4, 6, 6], dim=-1)[1:], x[:, windows.order][..., :6])[:, windows.inverse]
    q, k = x.split([4, 6, 6], dim=-1)[1:]
    expected = attend(q, k, x[..., :6], mask=shared(grid, size, rule))
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    for mine, theirs in zip(*(torch.autograd.grad((o * weights).sum(), x) for o in (out, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_no_window_is_padded():
    # 7 x 5 patches in windows of 3: four whole ones, and smaller ones at the right, below and in the corner.
    windows = GridWindows((7, 5), 3)
    assert windows.sizes == [(9, 18), (6, 12), (3, 3), (2, 2)]
    assert windows.order[:9].tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
    assert windows.order[18:24].tolist() == [3, 4, 8, 9, 13, 14]
    assert windows.order[-5:].tolist() == [30, 31, 32, 33, 34]
    assert windows.order[windows.inverse].tolist() == list(range(35))


@pytest.mark.parametrize(
    ('layout', 'windowed'),
    [
        ('MMMT' * 8, [3, 11, 19, 27]),
        ('MMMT' * 16, [i for i in range(3, 64, 4) if i % 16 != 15]),
        ('T' * 12, [0, 1, 3, 4, 6, 7, 9, 10]),
        ('T' * 6, [0, 3]),
        ('MT' * 5, [1]),
        ('MMMT' * 4, []),
        ('MT', []),
        ('M', []),
    ],
)
def test_the_last_of_each_quarter_stays_global(layout, windowed):
    assert sorted(windowed_blocks([i for i, letter in enumerate(layout) if letter == 'T'])) == windowed
    encoder = HybridEncoder(8, layout, num_heads=1, d_state=2)
    assert sorted(encoder.windowed_blocks) == windowed
    assert [i for i, block in enumerate(encoder.blocks) if block.windowed] == windowed


@pytest.mark.parametrize('rule', RULES, ids=str)
@pytest.mark.parametrize('layout', ['MT' * 5, 'T' * 6, 'MTTMMTTT'])
def test_an_encoder_equals_one_with_masks_in_those_blocks(layout, rule, monkeypatch):
    grid, size = (5, 7), 3
    encoder = HybridEncoder(16, layout, num_heads=2, d_state=4).eval()
    x = torch.randn(2, 35, 16)
    taps = range(len(layout))
    whole = encoder(x, out_indices=taps)
    windowed = encoder(x, out_indices=taps, windows=GridWindows(grid, size, GridSerialization(rule).order(grid)))
    mask, chosen, forward = shared(grid, size, rule), encoder.windowed_blocks, TransformerBlock.forward
    number = {block: i for i, block in enumerate(encoder.blocks)}

    def masked(block, branch, stream, context):
        by_mask = replace(context, attend=lambda q, k, v: attend(q, k, v, mask=mask))
        return forward(block, branch, stream, by_mask if number[block] in chosen else context)

    monkeypatch.setattr(TransformerBlock, 'forward', masked)
    expected = encoder(x, out_indices=taps)
    assert chosen
    torch.testing.assert_close(windowed, expected)
    assert all(torch.equal(a, b) for a, b in zip(whole[: min(chosen)], windowed, strict=False))
    assert not torch.allclose(whole[min(chosen)], windowed[min(chosen)], atol=1e-3)


def test_windows_and_regions_exclude_each_other():
    encoder = HybridEncoder(16, 'T' * 5, num_heads=2)
    with pytest.raises(ValueError, match='causal_regions and windows'):
        encoder(torch.randn(1, 4, 16), causal_regions=torch.arange(4), windows=GridWindows((2, 2), 1))


@pytest.mark.parametrize('with_cp', [False, True])
def test_compiles_into_one_graph(with_cp):
    encoder = HybridEncoder(16, 'MT' * 5, num_heads=2, d_state=4, with_cp=with_cp)
    x, windows = torch.randn(2, 12, 16), GridWindows((4, 3), 2)
    compiled = torch.compile(encoder, fullgraph=True, backend='eager')
    torch.testing.assert_close(compiled(x, windows=windows), encoder(x, windows=windows))
