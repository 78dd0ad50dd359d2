"""Which tokens are hidden, how many, and from which random numbers."""

import json
import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from mmmap.models.layers import GridSerialization, GridTokens, grid_coords
from mmmap.models.selfsup import DiagonalMasking, RandomMasking, SequentialMasking, masking
from mmmap.registry import MODELS

STRATEGIES = (RandomMasking, SequentialMasking, DiagonalMasking)


def tokens(batch: int = 3, grid: tuple[int, int] = (4, 4), device: str = 'cpu') -> GridTokens:
    embeddings = torch.zeros(batch, grid[0] * grid[1], 2, device=device)
    return GridTokens(embeddings, grid_coords(grid).to(device), GridSerialization('row').regions(grid), grid=grid)


@pytest.fixture
def facts(data_dir) -> dict:
    return json.loads((data_dir / 'released_facts.json').read_text())


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('grid', [(4, 4), (1, 2), (3, 5), (7, 1), (10, 10)])
@pytest.mark.parametrize('ratio', [0.001, 0.3, 0.5, 0.55, 0.75, 0.999])
def test_every_sample_hides_the_same_number(strategy, grid, ratio):
    length = grid[0] * grid[1]
    mask, count = strategy(ratio)(tokens(5, grid))
    assert mask.dtype == torch.bool
    assert mask.shape == (5, length)
    assert mask.sum(1).tolist() == [count] * 5
    assert isinstance(count, int)
    exact = math.ceil(length * int(ratio * 1000 + 0.5) / 1000 - 1e-9)
    assert count == min(max(exact, 1), length - 1)


def test_a_count_is_not_rounded_up_by_floating_point():
    assert RandomMasking(0.55)(tokens(1, (10, 10)))[1] == 55  # 100 * 0.55 is 55.00000000000001.


def test_random_masks_are_uniform():
    mask, _ = RandomMasking(0.25)(tokens(4000))
    assert len(mask.unique(dim=0)) > 1000
    frequencies = mask.float().mean(0)
    # Five standard deviations of a frequency of 0.25 over 4000 samples.
    assert (frequencies - 0.25).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5
    # Pairs as well: that two given tokens are hidden has the chance 4/16 * 3/15.
    pairs = mask[:, 0] & mask[:, 5]
    assert pairs.float().mean().item() == pytest.approx(0.05, abs=0.02)


def test_ratio_of_zero_hides_nothing():
    mask, count = RandomMasking(0)(tokens(2, (3, 4)))
    assert count == 0
    assert not mask.any()


def test_ratios_follow_the_released_distribution(facts):
    strategy = RandomMasking((0.3, 0.7))
    ratios = torch.tensor([strategy._draw_ratio(None) for _ in range(4000)]).double()
    assert stats.kstest(ratios.numpy(), stats.truncnorm(-0.8, 0.8, loc=0.5, scale=0.25).cdf).pvalue > 1e-3
    assert ratios.min() >= 0.3
    assert ratios.max() <= 0.7
    assert ratios.mean().item() == pytest.approx(facts['mean'], abs=0.01)
    assert ratios.std().item() == pytest.approx(facts['std'], abs=0.01)
    for probability, quantile in facts['quantiles'].items():
        assert ratios.quantile(float(probability)).item() == pytest.approx(quantile, abs=0.02)
    for ratio, probability in facts['cdf'].items():
        assert (ratios <= float(ratio)).double().mean().item() == pytest.approx(probability, abs=0.04)


@pytest.mark.parametrize('grid', [(4, 4), (6, 6), (8, 8), (14, 14), (24, 24)])
def test_counts_span_the_released_range(facts, grid):
    length = grid[0] * grid[1]
    lowest, highest = facts['num_masked'][str(length)]
    strategy = RandomMasking((0.3, 0.7))
    counts = [strategy(tokens(1, grid))[1] for _ in range(300)]
    assert lowest <= min(counts) < length * 0.36
    assert length * 0.64 < max(counts) <= highest
    for ratio, count in ((0.3, lowest), (0.7, highest)):  # What the ends of the range give.
        assert RandomMasking(ratio)(tokens(1, grid))[1] == count


def test_a_pair_around_another_centre():
    strategy = RandomMasking((0.6, 0.8), std=0.05)
    ratios = torch.tensor([strategy._draw_ratio(None) for _ in range(2000)]).double()
    assert stats.kstest(ratios.numpy(), stats.truncnorm(-2, 2, loc=0.7, scale=0.05).cdf).pvalue > 1e-3


def test_sequential_masking_hides_the_end():
    mask, count = SequentialMasking(0.4)(tokens(2, (3, 5)))
    assert count == 6
    assert torch.equal(mask, (torch.arange(15) >= 9).expand(2, -1))


@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (6, 2)])
def test_diagonal_masking_hides_the_corner_of_the_last_token(grid):
    rows, columns = grid
    mask, count = DiagonalMasking(0.5)(tokens(2, grid))
    assert torch.equal(mask[0], mask[1])
    distance = torch.tensor([(r + 0.5) / rows + (c + 0.5) / columns for r in range(rows) for c in range(columns)])
    assert distance[mask[0]].min() >= distance[~mask[0]].max() - 1e-4
    assert mask[0, -1]
    assert not mask[0, 0]
    assert count == math.ceil(rows * columns / 2)


def test_diagonal_masking_of_a_square_grid():
    mask, _ = DiagonalMasking(10 / 16)(tokens(1))
    diagonals = torch.tensor([r + c for r in range(4) for c in range(4)])
    assert torch.equal(mask[0], diagonals >= 3)


def test_coordinates_of_each_sample():
    shuffled = torch.stack([torch.randperm(16) for _ in range(3)])
    coords = grid_coords((4, 4))[shuffled]
    mask, _ = DiagonalMasking(10 / 16)(replace(tokens(), coords=coords))
    diagonals = torch.tensor([r + c for r in range(4) for c in range(4)])
    assert torch.equal(mask, diagonals[shuffled] >= 3)


# Random numbers


def draws(strategy, monkeypatch, hub, rank: int = 0, iteration: int = 0, calls: int = 1) -> list[torch.Tensor]:
    """Masks of several calls in one iteration of one rank."""
    monkeypatch.setattr(masking, 'get_rank', lambda: rank)
    hub.update_info('iter', iteration)
    return [strategy(tokens(8))[0] for _ in range(calls)]


def test_masks_repeat_for_the_same_seed_iteration_and_rank(message_hub, monkeypatch):
    first, second = (draws(RandomMasking(), monkeypatch, message_hub, calls=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_masks_differ_across_ranks_iterations_calls_and_seeds(message_hub, monkeypatch):
    masks = []
    for seed in (0, 1):
        message_hub.update_info('seed', seed)
        for rank in range(3):
            strategy = RandomMasking()
            for iteration in range(3):
                masks += draws(strategy, monkeypatch, message_hub, rank, iteration, calls=3)
    assert len(torch.stack(masks).flatten(1).unique(dim=0)) == 2 * 3 * 3 * 3


def test_ranks_share_the_ratio(message_hub, monkeypatch):
    counts = {}
    for rank in range(4):
        strategy = RandomMasking((0.3, 0.7))
        masks = [mask for step in range(20) for mask in draws(strategy, monkeypatch, message_hub, rank, step, calls=2)]
        counts[rank] = [mask[0].sum().item() for mask in masks]
    assert counts[0] == counts[1] == counts[2] == counts[3]
    assert len(set(counts[0])) > 3


def test_a_resumed_run_goes_on(message_hub, monkeypatch):
    whole = RandomMasking()
    uninterrupted = [draws(whole, monkeypatch, message_hub, iteration=i)[0] for i in range(6)]
    resumed = RandomMasking()
    rest = [draws(resumed, monkeypatch, message_hub, iteration=i)[0] for i in range(3, 6)]
    assert all(torch.equal(a, b) for a, b in zip(uninterrupted[3:], rest, strict=True))
    assert len(torch.stack(uninterrupted).flatten(1).unique(dim=0)) == 6


def test_a_run_leaves_the_default_generator_alone(message_hub):
    state = torch.get_rng_state()
    RandomMasking((0.3, 0.7))(tokens())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('strategy', STRATEGIES)
def test_within_a_run_shapes_can_be_counted(message_hub, strategy):
    """Counting a model's work on the meta device must also work where a run has set its iteration."""
    mask, num_masked = strategy(0.5)(tokens(device='meta'))
    assert (mask.device.type, mask.shape, num_masked) == ('meta', (3, 16), 8)


def test_outside_a_run_the_default_generator_decides(message_hub):
    message_hub.runtime_info.pop('iter')
    masks = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        strategy = RandomMasking((0.3, 0.7))
        masks.append([strategy(tokens(8))[0] for _ in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(masks[0], masks[1], strict=True))
    assert not torch.equal(masks[0][0], masks[0][1])
    assert not torch.equal(masks[0][0], masks[2][0])


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(ratio=-0.1), 'ratio=-0.1'),
        (dict(ratio=1), 'ratio=1'),
        (dict(ratio=(0.7, 0.3)), r'ratio=\(0.7, 0.3\)'),
        (dict(ratio=(0.2, 0.4, 0.6)), r'ratio=\(0.2, 0.4, 0.6\)'),
        (dict(ratio=(0.0, 0.5)), r'ratio=\(0.0, 0.5\)'),
        (dict(ratio=(0.3, 0.7), std=0), 'std=0'),
    ],
)
def test_wrong_options_are_named(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        MODELS.build(dict(type='RandomMasking', **options))


def test_a_misspelt_option_is_named():
    with pytest.raises(TypeError, match='mask_ratio'):
        MODELS.build(dict(type='RandomMasking', mask_ratio=0.5))


def test_one_token_cannot_be_split():
    with pytest.raises(ValueError, match='1 token'):
        RandomMasking()(tokens(2, (1, 1)))
