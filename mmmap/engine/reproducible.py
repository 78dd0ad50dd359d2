"""Random numbers that are functions of what they are for, not of what was drawn before.

A sample's augmentation depends on the seed, the rank, the epoch, the batch and the place in the batch; the numbers that
the model draws in a step depend on the seed, the rank and the iteration. A run can then stop and go on anywhere, with
any number of workers, and nothing has to be stored for it.
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
    """Seed the CPU's generators by a function of a key, the same in every process; returns a seed for others."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
    # Generators of one algorithm and seed, as Python's and NumPy's are, would draw the same numbers.
    seeds = np.frombuffer(digest, np.uint64).tolist()
    torch.default_generator.manual_seed(seeds[0])
    random.seed(seeds[1])
    np.random.seed([seeds[2] & 0xFFFFFFFF, seeds[2] >> 32])
    return seeds[3]


def seed_everything(*key: object) -> None:
    """Seed ``random``, NumPy and torch, the GPU included, which is not waited for.

    Args:
        *key (object): Numbers and names: what the random numbers are for, and a function of.
    """
    seed = _seed_cpu(*key)
    device = get_device()
    # torch.manual_seed() alone takes ten times as long as all this where there is no GPU.
    if device == 'cuda':
        torch.cuda.manual_seed(seed)
    elif device != 'cpu':
        torch.manual_seed(seed)


@contextmanager
def _kept_states() -> Iterator[None]:
    """Leave the generators of the main process as they were; a worker's are nobody else's."""
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
    """The indices of a batch and, in ``key``, what its random numbers are a function of. It travels to a worker."""

    key: tuple[int, ...] | None = None


class KeyedBatches:
    """A batch sampler around another one: its batches have keys, and the first ones of an epoch can be left out.

    Args:
        batches (Iterable): The batch sampler of a loader.
        seed (int): Of the run.

    Attributes:
        epoch (int): The epoch of the next iteration, part of the keys.
        start (int): Batches that the next iteration leaves out, without loading them.
    """

    def __init__(self, batches: Any, seed: int) -> None:
        self.batches, self.seed = batches, seed
        self.epoch = self.start = 0

    def __iter__(self) -> Iterator[KeyedBatch]:
        # A loader with workers starts it twice and uses the second one.
        return self._batches(self.epoch, self.start)

    def _batches(self, epoch: int, start: int) -> Iterator[KeyedBatch]:
        # Samplers of torch and of others draw from the generators that all share, and all ranks must draw alike.
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
        # `batch_size`, and `sampler`, whose epoch DistSamplerSeedHook sets.
        if name == 'batches':
            raise AttributeError(name)
        return getattr(self.batches, name)


class KeyedSamples:
    """Loads a batch of a data set with random numbers of its key: torch's ``__getitems__`` of that data set.

    Args:
        dataset (Dataset): Of the loader.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __call__(self, indices: list) -> list:
        """Load the samples.

        Args:
            indices (list): A :class:`KeyedBatch`. One without a key is loaded as it would be without this class.
        """
        key = getattr(indices, 'key', None)
        # One that loads whole batches goes on doing so.
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
    """Make what a loader loads a function of seed, rank, epoch and place, in place.

    Args:
        loader (DataLoader): Not iterated yet, or its iterator not used any more.
        seed (int): Of the run.

    Returns:
        KeyedBatches | None: Where the epoch is set; None where this is not possible: no map-style data set that is
        loaded in batches by torch's loader.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        return None
    if isinstance(loader.dataset, IterableDataset):
        return None
    if not isinstance(loader.batch_sampler, KeyedBatches):
        try:
            # Looked up there by torch, in a worker too, which gets the data set with all its attributes.
            loader.dataset.__getitems__ = KeyedSamples(loader.dataset)
        except AttributeError:  # A class with slots.
            return None
        # DataLoader forbids the assignment to keep sampler and batch sampler consistent, which they are. To build
        # another loader is no way: hooks and loops hold this one.
        loader.__dict__['batch_sampler'] = KeyedBatches(loader.batch_sampler, seed)
        # Persistent workers that run already would keep the former batch sampler.
        loader._iterator = None
    loader.batch_sampler.seed = seed
    return loader.batch_sampler


def samplers_of(loader: DataLoader) -> list:
    """What draws the order of a loader's samples: its sampler and its batch sampler's."""
    found = [loader.sampler, getattr(loader.batch_sampler, 'sampler', None)]
    return [sampler for index, sampler in enumerate(found) if sampler is not None and sampler not in found[:index]]


def is_infinite(loader: DataLoader) -> bool:
    """Whether the sampler of a loader never ends."""
    return any(isinstance(sampler, InfiniteSampler) for sampler in samplers_of(loader))


class EndlessBatches:
    """The batches of a loop that counts iterations, in place of mmengine's iterator, from any place on.

    mmengine's starts its workers before the place to go on from is known, or reads its way there.

    Args:
        loader (DataLoader): One that :func:`make_reproducible` has seen.
        epoch (int): The pass through the data to start in.
        batch (int): Batches of that pass to leave out.
        ignored (int): Calls at the start that give nothing: those by which mmengine before 0.10.8 goes forward.

    Attributes:
        epoch (int): The pass through the data.
        batch (int): Batches of it that were given out.
    """

    def __init__(self, loader: DataLoader, epoch: int, batch: int, ignored: int = 0) -> None:
        self.loader, self.epoch, self.batch, self.ignored = loader, epoch, batch, ignored
        self._iterator = None
        for sampler in samplers_of(loader):
            # Its stream is one for all iterators, and mmengine's may have read from it.
            if hasattr(sampler, 'skip'):
                sampler.skip(0)
            elif type(sampler) is InfiniteSampler:
                sampler.__init__(sampler.dataset, shuffle=sampler.shuffle, seed=sampler.seed)

    def skip_iter(self, num_iters: int) -> None:
        """Where later versions of mmengine go forward: it starts at the right place already."""

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
                batches = self.loader.batch_sampler
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
