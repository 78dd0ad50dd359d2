"""How batches are made of several data sets."""

from collections.abc import Iterator
from itertools import accumulate, islice

from mmengine.dataset import ConcatDataset, DefaultSampler
from torch.utils.data import Sampler

from mmmap.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class InTurnBatchSampler(Sampler):
    """Batches of the data sets of a ``ConcatDataset`` in turn, each batch of one of them, on all ranks of the same one.

    An epoch has equally many whole batches of each, as many as the smallest data set gives. The others show a part of
    theirs, at each epoch another if the sampler shuffles; a ``RepeatDataset`` around the smallest makes epochs longer.

    Args:
        sampler (DefaultSampler): The sampler of the whole. Its data set, seed, epoch and ``shuffle`` are taken.
        batch_size (int): Samples of a batch.

    Raises:
        TypeError: If the sampler is another, or its data set no ``ConcatDataset``.
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
        """Indices into the whole data set, a list for each batch."""
        for part in self.parts:
            part.seed = self.sampler.seed
            part.set_epoch(self.sampler.epoch)
        streams = [iter(part) for part in self.parts]
        for _ in range(self.turns):
            for stream, offset in zip(streams, self.offsets, strict=True):
                yield [offset + index for index in islice(stream, self.batch_size)]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.turns * len(self.parts)
