"""Limits settings of configs for large data sets so that they work with small ones."""

import os
from collections.abc import Iterator

from mmengine.config import Config

from .config_parts import type_name, walk


def limit_batch_size(cfg: Config, images: int) -> Iterator[str]:
    """Limit the batch size to the number of training images of a process, in place; yields a line for each change."""
    loader = cfg.train_dataloader
    by_slurm = os.environ.get('SLURM_NTASKS') if cfg.get('launcher') == 'slurm' else None
    share = -(-images // int(os.environ.get('WORLD_SIZE') or by_slurm or 1))
    if loader.get('batch_size', 1) > share:
        yield f'train_dataloader.batch_size {loader.batch_size} -> {share}, all images of a process'
        loader.batch_size = share
        # Broken images may make this one batch smaller.
        loader.pop('drop_last', None)


def limit_neighbours(cfg: Config, key: str, images: int) -> Iterator[str]:
    """Limit the neighbours of kNN to half of the images of its bank, as some may be broken, in place.

    ``key`` is the part of the config with the hooks or the loop. Yields a line for each change.
    """
    most = max(1, images // 2)
    for _, part in walk(cfg._cfg_dict.get(key)):
        if isinstance(part, dict) and 'bank_dataloader' in part and part.get('k', 20) > most:
            yield f'k of {type_name(part["type"])} {part.get("k", 20)} -> {most}, half of the images of its bank'
            part['k'] = most
