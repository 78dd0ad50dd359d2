"""Random numbers that depend on their purpose and place in the training, not on earlier draws.

A sample's augmentation depends on the seed, the rank, the epoch, the batch and the position in the batch. The numbers
that the model draws in a step depend on the seed, the rank and the iteration. So a run can stop and continue anywhere,
with any number of workers, and no state of a generator is stored.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.device import get_device
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info


def _seed_cpu(*key: object) -> int:
    """Seed the CPU's generators from a key, alike in every process. Returns a further seed."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
    # Python and NumPy use one algorithm: with one seed both would draw the same numbers.
    seeds = np.frombuffer(digest, np.uint64).tolist()
    torch.default_generator.manual_seed(seeds[0])
    random.seed(seeds[1])
    np.random.seed([seeds[2] & 0xFFFFFFFF, seeds[2] >> 32])
    return seeds[3]


def seed_everything(*key: object) -> None:
    """Seed ``random``, NumPy and torch from a key of numbers and names, on the GPU too, without waiting for it."""
    seed = _seed_cpu(*key)
    device = get_device()
    # Without a GPU, torch.manual_seed() alone takes ten times as long as all this.
    if device == 'cuda':
        torch.cuda.manual_seed(seed)
    elif device != 'cpu':
        torch.manual_seed(seed)


@contextmanager
def _kept_states() -> Iterator[None]:
    """Restore the generators of the main process afterwards. Those of a worker need no restoring."""
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


class KeyedBatch(list):
    """The indices of a batch with the ``key`` of its random numbers. It is sent to a worker."""

    key: tuple[int, ...] | None = None


class KeyedBatches:
    """A batch sampler that wraps another: it adds keys to batches and can skip the first batches of an epoch.

    Args:
        batches (Iterable): The batch sampler of a loader.
        seed (int): Of the run.

    Attributes:
        epoch (int): The epoch of the next iteration, part of the keys.
        start (int): Batches that the next iteration skips. They are not loaded.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[KeyedBatch]:
        # A loader with workers calls this twice and uses the second iterator.
        return self._batches(self.epoch, self.start)

    def _batches(self, epoch: int, start: int) -> Iterator[KeyedBatch]:
        # Samplers draw from the global generators, and all ranks must draw alike.
        with _kept_states():
            _seed_cpu('order', self.seed, epoch)
            batches = iter(self.batches)
            for number in range(start):
                _seed_cpu('order', self.seed, epoch, number)
                if next(batches, None) is None:
                    return
        for number in count(start):
            with _kept_states():
                _seed_cpu('order', self.seed, epoch, number)
                indices = next(batches, None)
            if indices is None:
                return
            batch = KeyedBatch(indices)
            batch.key = (self.seed, get_rank(), epoch, number)
            yield batch

    def __len__(self) -> int:
        return len(self.batches)

    def __getattr__(self, name: str) -> Any:
        # Read from outside: `batch_size`, and `sampler`, whose epoch DistSamplerSeedHook sets.
        if name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)


class KeyedSamples:
    """Loads a batch of a data set, seeded by the batch's key. It is set as the data set's ``__getitems__``."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: list) -> list:
        """Load the samples of a :class:`KeyedBatch`. A list without a key is loaded without seeding."""
        key = getattr(indices, 'key', None)
        # The data set's own way to load a whole batch, if it has one.
        whole = getattr(type(self.dataset), '__getitems__', None)
        if key is None:
            return [self.dataset[index] for index in indices] if whole is None else whole(self.dataset, indices)
        with _kept_states():
            _seed_cpu('sample', *key)
            if whole is not None:
                return whole(self.dataset, indices)
            samples = []
            for position, index in enumerate(indices):
                _seed_cpu('sample', *key, position, index)
                samples.append(self.dataset[index])
            return samples


def make_reproducible(loader: object, seed: int) -> KeyedBatches | None:
    """Change a loader so that its samples depend only on the seed, rank, epoch and place.

    Args:
        loader (DataLoader): Not iterated yet, or its iterator is not used any more.
        seed (int): Of the run.

    Returns:
        KeyedBatches | None: Its ``epoch`` sets the epoch. None, and no change, unless torch's loader loads batches of a
        map-style data set.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    batches = loader.batch_sampler
    if batches is None:
        return None
    if not isinstance(batches, KeyedBatches):
        try:
            # torch looks it up there. A worker gets the data set with all its attributes.
            loader.dataset.__getitems__ = KeyedSamples(loader.dataset)  # type: ignore[attr-defined]
        except AttributeError:  # A class with slots.
            return None
        # DataLoader forbids this assignment, as sampler and batch sampler could differ; here they agree. Hooks and
        # loops hold this loader, so it cannot be replaced.
        batches = loader.__dict__['batch_sampler'] = KeyedBatches(batches, seed)
        # Running persistent workers would keep the former batch sampler.
        loader._iterator = None
    batches.seed = seed
    return batches


def samplers_of(loader: DataLoader) -> list:
    """The samplers that draw the order of a loader's samples: its own and its batch sampler's."""
    found = [loader.sampler, getattr(loader.batch_sampler, 'sampler', None)]
    return [sampler for index, sampler in enumerate(found) if sampler is not None and sampler not in found[:index]]


def is_infinite(loader: DataLoader) -> bool:
    """Whether the sampler of a loader never ends."""
    return any(isinstance(sampler, InfiniteSampler) for sampler in samplers_of(loader))


class EndlessBatches:
    """The batches of a loop that counts iterations. It replaces mmengine's iterator and can start anywhere.

    mmengine's iterator starts its workers before the place to resume from is known, or reads all batches up to it.

    Args:
        loader (DataLoader): After :func:`make_reproducible`.
        epoch (int): The pass through the data to start in.
        batch (int): Batches of that pass to skip.
        ignored (int): Number of first calls that return None: mmengine before 0.10.8 skips batches by such calls.

    Attributes:
        epoch (int): The current pass through the data.
        batch (int): Batches of this pass that are done.
    """

    def __init__(self, loader: DataLoader, epoch: int, batch: int, ignored: int = 0) -> None:
        self.loader, self.epoch, self.batch, self.ignored = loader, epoch, batch, ignored
        self._iterator: Iterator | None = None
        for sampler in samplers_of(loader):
            # All its iterators share one stream, and mmengine's may have read from it.
            if hasattr(sampler, 'skip'):
                sampler.skip(0)
            elif type(sampler) is InfiniteSampler:
                sampler.__init__(sampler.dataset, shuffle=sampler.shuffle, seed=sampler.seed)

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: newer versions of mmengine call this to skip batches, which the start has done."""

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self.ignored:
            self.ignored -= 1
            return None
        while True:
            if self._iterator is None:
                for sampler in samplers_of(self.loader):
                    if hasattr(sampler, 'set_epoch'):
                        sampler.set_epoch(self.epoch)
                batches: Any = self.loader.batch_sampler
                batches.epoch, batches.start = self.epoch, self.batch
                self._iterator = iter(self.loader)
            try:
                data = next(self._iterator)
            except StopIteration:
                if not self.batch:
                    raise
                self._iterator = None
                self.epoch, self.batch = self.epoch + 1, 0
                continue
            self.batch += 1
            return data
