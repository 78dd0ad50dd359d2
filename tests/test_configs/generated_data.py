"""Data sets of a few generated images, laid out as the configs expect them."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

# Enough for 20 nearest neighbours, with three of each class of digits.
NUM_IMAGES = 24


def _image(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype='uint8')


def ramps(seed: int, height: int, width: int) -> np.ndarray:
    """An image that becomes brighter from top to bottom, as each of its patches does."""
    colour = np.random.default_rng(seed).uniform(100, 250, 3)
    rows = np.arange(height)[:, None, None] / height
    return np.broadcast_to(rows * colour, (height, width, 3)).astype('uint8')


def write_imagenet(root: Path) -> None:
    """With meta/SPLIT.txt for the labels, so that 1,000 folders are not needed."""
    for split in ('train', 'val'):
        for folder in (root / split, root / 'meta'):
            folder.mkdir(parents=True, exist_ok=True)
        names = [f'{i}.JPEG' for i in range(NUM_IMAGES)]
        for i, name in enumerate(names):
            Image.fromarray(_image(i, 60, 80)).save(root / split / name)
        (root / 'meta' / f'{split}.txt').write_text('\n'.join(f'{name} {i}' for i, name in enumerate(names)))


def write_digits(root: Path) -> None:
    for split in ('train', 'test'):
        for i in range(10):
            folder = root / split / str(i)
            folder.mkdir(parents=True)
            for seed in range(3):
                Image.fromarray(_image(seed, 28, 28)).save(folder / f'{seed}.png')


def write_cifar10(root: Path, draw: Callable[[int, int, int], np.ndarray] = _image) -> None:
    """The Python version of CIFAR-10; the test has to skip the check of its hashes."""
    folder = root / 'cifar-10-batches-py'
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f'data_batch_{i}' for i in range(1, 6)), 'test_batch']):
        data = np.stack([draw(10 * number + i, 32, 32).transpose(2, 0, 1).ravel() for i in range(NUM_IMAGES)])
        with open(folder / name, 'wb') as file:
            pickle.dump({'data': data, 'labels': [i % 10 for i in range(NUM_IMAGES)]}, file)
    names = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
    with open(folder / 'batches.meta', 'wb') as file:
        pickle.dump({'label_names': names}, file)


def write_tiny_imagenet(root: Path) -> None:
    """In folders of classes, two of the 200."""
    for split in ('train', 'test'):
        for i in range(NUM_IMAGES):
            folder = root / split / 'ab'[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_image(i, 64, 64)).save(folder / f'{i}.JPEG')


def write_unlabelled(folder: Path) -> None:
    """Images in one folder, which pretraining reads."""
    folder.mkdir(parents=True)
    for i in range(4):
        Image.fromarray(_image(i, 90, 120)).save(folder / f'{i}.png')
