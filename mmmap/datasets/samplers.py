"""Samplers for several data sets, and for shards."""

from collections.abc import Iterator
from itertools import accumulate, islice

import torch
from mmengine.dataset import ConcatDataset, DefaultSampler
from torch.utils.data import Sampler

from mmmap.registry import DATA_SAMPLERS

from .image_shards import ImageShards


@DATA_SAMPLERS.register_module()
class InTurnBatchSampler(Sampler):
    """Draws each batch from one data set of a ``ConcatDataset``, in turn. All ranks use the same data set.

    An epoch has the same number of full batches of each data set, as many as the smallest one has. Of larger data sets
    only a part is drawn, a different one in each epoch if the sampler shuffles. Put the smallest data set into a
    ``RepeatDataset`` to make epochs longer.

    Args:
        sampler (DefaultSampler): A sampler of the ``ConcatDataset``. Its seed, epoch and ``shuffle`` are used.
        batch_size (int): Samples per batch.

    Raises:
        TypeError: If the sampler or its data set is of another type.
        ValueError: If a data set has fewer samples than a batch.
    """

    def __init__(self, sampler: DefaultSampler, batch_size: int) -> None:
        if not isinstance(sampler, DefaultSampler):
            raise TypeError(f'InTurnBatchSampler needs a DefaultSampler, not a {type(sampler).__name__}')
        if not isinstance(sampler.dataset, ConcatDataset):
            raise TypeError(f'InTurnBatchSampler needs a ConcatDataset, not a {type(sampler.dataset).__name__}')
        # DistSamplerSeedHook sets the epoch of this one.
        self.sampler = sampler
        self.batch_size = batch_size
        parts = sampler.dataset.datasets
        self.parts = [DefaultSampler(part, shuffle=sampler.shuffle, seed=sampler.seed) for part in parts]
        self.offsets = [0, *accumulate(len(part) for part in parts[:-1])]
        counts = [len(part) for part in self.parts]
        if min(counts) < batch_size:
            index = counts.index(min(counts))
            raise ValueError(f'batch_size={batch_size}: data set {index} has {counts[index]} samples for a process')
        self.turns = min(counts) // batch_size

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each batch into the ``ConcatDataset``."""
        for part in self.parts:
            part.seed = self.sampler.seed
            part.set_epoch(self.sampler.epoch)
        streams = [iter(part) for part in self.parts]
        for _ in range(self.turns):
            for stream, offset in zip(streams, self.offsets, strict=True):
                yield [offset + index for index in islice(stream, self.batch_size)]

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.turns * len(self.parts)


@DATA_SAMPLERS.register_module()
class ShardSampler(DefaultSampler):
    """Shuffles shards, and the images of a few shards at a time. For slow or remote storage.

    As with ``DefaultSampler``, an epoch has each image once (besides rounding up), in the same order with any number of
    processes. All processes read the same few shards at a time.

    Args:
        dataset (ImageShards): The images.
        window (int): Number of shards that are shuffled together. More shards mix better. Defaults to 16.
        shuffle (bool): As for ``DefaultSampler``. Defaults to True.
        seed (int, optional): As for ``DefaultSampler``.
        round_up (bool): As for ``DefaultSampler``. Defaults to True.

    Raises:
        TypeError: If the data set is of another type.
        ValueError: If ``window`` is not positive, or the data set has only a part of its shards (``indices``).
    """

    def __init__(
        self,
        dataset: ImageShards,
        window: int = 16,
        shuffle: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        if not isinstance(dataset, ImageShards):
            raise TypeError(f'ShardSampler needs an ImageShards, not a {type(dataset).__name__}: use DefaultSampler')
        if window < 1:
            raise ValueError(f'ShardSampler: window={window} must be positive')
        if len(dataset) != sum(dataset.shard_sizes):
            raise ValueError('ShardSampler: an ImageShards with indices has incomplete shards: use DefaultSampler')
        super().__init__(dataset, shuffle=shuffle, seed=seed, round_up=round_up)
        self.window = window

    def __iter__(self) -> Iterator[int]:
        """Iterate over the indices of this process."""
        if not self.shuffle:
            return super().__iter__()
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)
        shards = torch.arange(len(self.dataset)).split(self.dataset.shard_sizes)
        turns = torch.randperm(len(shards), generator=generator).split(self.window)
        order = []
        for turn in turns:
            indices = torch.cat([shards[shard] for shard in turn])
            order += indices[torch.randperm(len(indices), generator=generator)].tolist()
        if self.round_up:
            order = (order * (self.total_size // len(order) + 1))[: self.total_size]
        return iter(order[self.rank : self.total_size : self.world_size])
