"""Fits configs that were made for large data sets to small ones."""

import os
from collections.abc import Iterator

from mmengine.config import Config

from .config_check import walk
from .config_rules import type_name


def fit_training(cfg: Config, images: int) -> Iterator[str]:
    """Make batches no larger than an epoch, in place.

    Args:
        cfg (Config): The config of a training.
        images (int): What it trains on.

    Yields:
        str: Each change, for the log.
    """
    loader = cfg.train_dataloader
    by_slurm = os.environ.get('SLURM_NTASKS') if cfg.get('launcher') == 'slurm' else None
    share = -(-images // int(os.environ.get('WORLD_SIZE') or by_slurm or 1))
    if loader.get('batch_size', 1) > share:
        yield f'train_dataloader.batch_size {loader.batch_size} -> {share}, all images of a process'
        loader.batch_size = share
        # Broken images may leave this one batch smaller.
        loader.pop('drop_last', None)


def fit_neighbours(cfg: Config, key: str, images: int) -> Iterator[str]:
    """Let kNN ask at most half of a bank, in place.

    Args:
        cfg (Config): The config of a run.
        key (str): The part of it with the hooks or the loop.
        images (int): Those of the bank, some of which may be broken.

    Yields:
        str: Each change, for the log.
    """
    most = max(1, images // 2)
    for _, part in walk(cfg._cfg_dict.get(key)):
        if isinstance(part, dict) and 'bank_dataloader' in part and part.get('k', 20) > most:
            yield f'k of {type_name(part["type"])} {part.get("k", 20)} -> {most}, half of the images of its bank'
            part['k'] = most
