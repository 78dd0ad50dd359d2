"""Batches of several data sets in turn, and the order of shards."""

from itertools import groupby

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, DefaultSampler, InfiniteSampler

from mmmap.datasets import ImageShards, InTurnBatchSampler, ShardSampler


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


class Shards(ImageShards):
    """Shards of so many images, without files."""

    def __init__(self, **options):
        # Serializing collects garbage, which takes half a second.
        super().__init__('', serialize_data=False, **options)

    def load_data_list(self):
        self.shard_sizes = [5, 1, 0, 7, 4, 6]
        return [dict(number=i) for i in range(23)]


def ranks_of(monkeypatch, world, epoch=0, **options):
    """The indices of each process."""
    found = []
    for rank in range(world):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda rank=rank: (rank, world))
        sampler = ShardSampler(Shards(), seed=5, **options)
        sampler.set_epoch(epoch)
        found.append(list(sampler))
        assert len(sampler) == len(found[-1])
    return found


def test_an_epoch_has_each_image_once_on_any_number_of_processes(monkeypatch):
    for world in (1, 2, 3, 7):
        for options in ({}, dict(round_up=False)):
            ranks = ranks_of(monkeypatch, world, window=2, **options)
            drawn = [index for rank in ranks for index in rank]
            assert set(drawn) == set(range(23))
            # Not more than those that fill the last round, as with DefaultSampler.
            assert len(drawn) == (-(-23 // world) * world if not options else 23)
        # Taken in turn, the order is the same: a run goes on with another number of processes after the same images.
        order = [rank[i] for i in range(len(ranks[0])) for rank in ranks if i < len(rank)]
        assert order == ranks_of(monkeypatch, 1, window=2)[0]


def test_few_shards_at_a_time_and_another_order_in_each_epoch(monkeypatch):
    shard_of = [shard for shard, size in enumerate(Shards().shard_sizes) for _ in range(size)]
    orders = [ranks_of(monkeypatch, 1, epoch, window=2)[0] for epoch in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert ranks_of(monkeypatch, 1, 0, window=2)[0] == orders[0]
    for order in orders:
        turns = [shard for shard, _ in groupby(shard_of[index] for index in order)]
        spans = {shard: (turns.index(shard), len(turns) - turns[::-1].index(shard)) for shard in set(turns)}
        # No shard comes back after two others were finished.
        open_at_once = max(sum(first <= i < last for first, last in spans.values()) for i in range(len(turns)))
        assert open_at_once == 2
        assert order != sorted(order)


def test_what_has_no_shards_is_named():
    with pytest.raises(TypeError, match='ShardSampler needs an ImageShards, not a Numbers'):
        ShardSampler(Numbers(3), seed=0)
    with pytest.raises(ValueError, match='window=0 must be positive'):
        ShardSampler(Shards(), window=0, seed=0)
    with pytest.raises(ValueError, match='with indices has incomplete shards'):
        ShardSampler(Shards(indices=4), seed=0)
