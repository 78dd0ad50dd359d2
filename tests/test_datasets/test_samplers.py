"""Batches of several data sets in turn."""

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, InfiniteSampler

from mmmap.datasets import InTurnBatchSampler


class Numbers(BaseDataset):
    """So many samples."""

    def __init__(self, count):
        self.count = count
        super().__init__()

    def load_data_list(self):
        return [dict(number=i) for i in range(self.count)]


@pytest.fixture
def whole():
    return ConcatDataset([Numbers(20), Numbers(7), Numbers(9)])


def test_data_sets_take_turns_until_the_smallest_is_through(whole):
    sampler = InTurnBatchSampler(DefaultSampler(whole, shuffle=False, seed=0), batch_size=3)
    batches = list(sampler)
    # Twice three of the seven, so twice of all.
    assert len(sampler) == len(batches) == 6
    assert batches == [[0, 1, 2], [20, 21, 22], [27, 28, 29], [3, 4, 5], [23, 24, 25], [30, 31, 32]]


def test_each_epoch_shows_others_and_a_resumed_one_the_same(whole):
    default = DefaultSampler(whole, seed=3)
    sampler = InTurnBatchSampler(default, batch_size=3)
    first = list(sampler)
    assert list(sampler) == first
    # As DistSamplerSeedHook does.
    sampler.sampler.set_epoch(1)
    assert list(sampler) != first
    again = InTurnBatchSampler(DefaultSampler(whole, seed=3), batch_size=3)
    assert list(again) == first
    for low, high, batch in zip((0, 20, 27) * 2, (20, 27, 36) * 2, first, strict=True):
        assert len(set(batch)) == 3 and all(low <= index < high for index in batch)


def test_ranks_share_the_samples_and_agree_on_the_turns(whole, monkeypatch):
    ranks = []
    for rank in range(2):
        default = DefaultSampler(whole, seed=3)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, 2))
        ranks.append(list(InTurnBatchSampler(default, batch_size=2)))
    assert len(ranks[0]) == len(ranks[1]) == 6
    for low, high, *batches in zip((0, 20, 27) * 2, (20, 27, 36) * 2, *ranks, strict=True):
        indices = [index for batch in batches for index in batch]
        assert all(low <= index < high for index in indices) and len(set(indices)) == 4


def test_what_cannot_take_turns_is_named(whole):
    with pytest.raises(TypeError, match='needs a DefaultSampler, not a InfiniteSampler'):
        InTurnBatchSampler(InfiniteSampler(whole, seed=0), batch_size=2)
    with pytest.raises(TypeError, match='needs a ConcatDataset, not a Numbers'):
        InTurnBatchSampler(DefaultSampler(Numbers(4), seed=0), batch_size=2)
    with pytest.raises(ValueError, match='batch_size=8: data set 1 has 7 samples'):
        InTurnBatchSampler(DefaultSampler(whole, seed=0), batch_size=8)
