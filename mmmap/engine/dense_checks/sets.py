"""Checks that no data set is empty, and that its files exist."""

import os
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from ...utils.errors import UserError
from .annotation_files import annotation_fault
from .dense_runs import datasets
from .loading import emptiness, missing_source
from .pipelines import annotation_loader, evenly, pipeline_of

# Pictures of a data set whose files are looked for.
_LOOKED_AT = 16


def check_sets(runner: Runner) -> None:
    """Check that each data set of a run has samples, and that a few of its pictures and masks exist.

    Raises:
        UserError: With the key of the config.
    """
    for key, dataset in datasets(runner):
        if not isinstance(dataset, BaseDataset):
            continue
        if len(dataset) == 0:
            fault = missing_source(dataset, key) or annotation_fault(dataset.ann_file or '', key)
            raise UserError(fault or emptiness(dataset, key) or f'{key} has no sample')
        _check_files(dataset, key)


def _check_files(dataset: BaseDataset, key: str) -> None:
    """Check that a few files of a data set exist, if they lie on a disk."""
    if getattr(dataset, 'backend_args', None) or any(
        getattr(transform, 'backend_args', None) for _, transform in pipeline_of(dataset, key)
    ):
        return
    loader = annotation_loader(dataset, key)
    # A transform of mmdet says whether it loads the masks of pixels.
    masks = loader is not None and getattr(loader[1], 'with_seg', True)
    indices = evenly(len(dataset), _LOOKED_AT)
    samples = [dataset.get_data_info(index) for index in indices]
    for name, setting in (('img_path', 'img'), *([('seg_map_path', 'seg')] if masks else [])):
        paths = [sample.get(name) for sample in samples]
        missing = [path for path in paths if isinstance(path, str) and '://' not in path and not os.path.isfile(path)]
        if missing:
            prefix: Any = dataset.data_prefix or {}
            used = next((part for part in (name, setting) if part in prefix), name)
            named = dataset.ann_file or 'the folder of the pictures'
            suffix = f', seg_map_suffix={dataset.seg_map_suffix!r}' if name == 'seg_map_path' else ''
            raise UserError(
                f'{key}.data_prefix.{used}: {len(missing)} of {len(paths)} files that were looked for do not exist, '
                f'first {missing[0]}: it is made of data_root, data_prefix and the names in {named}{suffix}'
            )
