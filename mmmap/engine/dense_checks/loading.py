"""Says in one line why a data set of a detector or segmentor cannot be built, or is empty."""

import copy
import os
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.runner import FlexibleRunner, Runner

from mmmap.registry import DATASETS

from ...utils.class_names import listed
from ...utils.errors import UserError
from ..config_parts import DATALOADERS, find_class
from ..wrapped_datasets import inner_datasets
from .annotation_files import annotation_fault
from .categories import dataset_fault
from .dense_runs import dense_model


def explain_faults() -> None:
    """Let mmengine's Runners say in one line why the data of a detector or segmentor cannot be loaded.

    A Runner builds its data sets before any hook is called, so its method is wrapped, once in a process. Data loaders
    that can be built are not changed, and neither are those of other models.
    """
    for kind in (Runner, FlexibleRunner):
        build = vars(kind)['build_dataloader']
        if not isinstance(build, _Explained):
            kind.build_dataloader = _Explained(build.__func__)


class _Explained:
    """A static method that is told the Runner through which it was called."""

    def __init__(self, build: Any) -> None:
        self.build = build

    def __get__(self, runner: Runner | None, kind: type) -> Any:
        return self.build if runner is None else partial(self._build, runner)

    def _build(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return self.build(dataloader, *args, **kwargs)
        except UserError:
            raise
        except Exception as error:
            config = dataloader.get('dataset') if isinstance(dataloader, dict) else None
            if not isinstance(config, dict) or dense_model(runner) is None:
                raise
            names = [name for name in DATALOADERS if getattr(runner, f'_{name}', None) == dataloader]
            key = f'{names[0] if names else "dataloader"}.dataset'
            for where, leaf in _leaves(config, key):
                if fault := _fault(leaf, where):
                    raise UserError(fault) from error
            raise


def _leaves(config: dict, key: str) -> Iterator[tuple[str, dict]]:
    """The configs of data sets inside wrappers, also inside those that have a pipeline of their own."""
    inner = inner_datasets({name: value for name, value in config.items() if name != 'pipeline'}, key)
    for where, part in inner:
        if isinstance(part, dict):
            yield from _leaves(part, where)
    if not inner:
        yield key, config


def _fault(config: dict, key: str) -> str | None:
    """Why a data set cannot be built from its config; None if it can, or the reason is not known."""
    try:
        dataset: Any = DATASETS.build({**config, 'pipeline': [], 'lazy_init': True})
    except ValueError as error:
        if 'not a subset' not in str(error):
            return None
        kind: Any = find_class(config, ('dataset',))
        known = kind.METAINFO['classes']
        own = config.get('metainfo', {}).get('classes', ())
        unknown = [name for name in own if name not in known]
        return (
            f'{key}.metainfo.classes: {kind.__name__} has no {listed(unknown)}: for data of your own write '
            f"{key}.type='BaseSegDataset'"
        )
    except Exception:
        return None
    if missing := missing_source(dataset, key):
        return missing
    try:
        samples = dataset.load_data_list()
    except Exception as error:
        text = str(error).strip().splitlines()
        return annotation_fault(dataset.ann_file, key) or (
            f'{key}: {dataset.ann_file or dataset.data_prefix} cannot be read ({type(error).__name__}: '
            f'{text[0] if text else "no message"})'
        )
    return emptiness(dataset, key, samples)


def missing_source(dataset: Any, key: str) -> str | None:
    """Which file or folder of a data set does not exist; None if all do, or lie on no disk."""
    if getattr(dataset, 'backend_args', None):
        return None
    root = getattr(dataset, 'data_root', '') or ''
    if root and '://' not in root and not os.path.isdir(root):
        return f'{key}.data_root: data not found: {root}{_nearest(root)}; put the data there or change the field'
    ann_file = getattr(dataset, 'ann_file', '') or ''
    if ann_file and '://' not in ann_file and not os.path.exists(ann_file):
        return f'{key}.ann_file: data not found: {ann_file}{_nearest(ann_file)}'
    for name, folder in (getattr(dataset, 'data_prefix', None) or {}).items():
        if isinstance(folder, str) and folder and '://' not in folder and not os.path.isdir(folder):
            # Some data sets join file names to a beginning that is no folder.
            if name == 'seg_map_path' and dataset.test_mode:
                continue
            if not list(Path(folder).parent.glob(f'{Path(folder).name}*')):
                return f'{key}.data_prefix.{name}: data not found: {folder}{_nearest(folder)}'
    return None


def _nearest(path: str) -> str:
    """The part of a path that exists, and what lies there."""
    parent = next((folder for folder in Path(path).parents if folder.is_dir()), None)
    if parent is None:
        return ''
    inside = sorted(entry.name for entry in parent.iterdir())
    return f'; {parent.absolute()} has {listed(inside) if inside else "nothing"}'


def emptiness(dataset: Any, key: str, samples: list | None = None) -> str | None:
    """Why a data set is empty, and what to do; None if it is not.

    Args:
        dataset (BaseDataset): A data set of mmdet or mmseg.
        key (str): Its key in the config.
        samples (list, optional): Its samples before they are filtered. They are loaded if None.
    """
    trial = copy.copy(dataset)
    trial.data_list = dataset.load_data_list() if samples is None else samples
    number, ann_file = len(trial.data_list), dataset.ann_file or ''
    if not number:
        return _no_pictures(dataset, key)
    trial.data_list = trial.filter_data()
    if trial.data_list and dataset._indices is not None:
        return None if _chosen(trial) else f'{key}.indices={dataset._indices!r} leaves none of its {number} pictures'
    if trial.data_list:
        return None
    return dataset_fault(dataset, key) or (
        f'{key} is empty: filter_cfg={dict(dataset.filter_cfg or {})} leaves none of its {number} pictures; either '
        f'{ann_file} has no usable box of {listed(dataset.metainfo.get("classes") or ())}, or min_size is too large'
    )


def _chosen(dataset: Any) -> bool:
    """Whether the indices of a data set choose a sample."""
    try:
        return bool(dataset._get_unserialized_subset(dataset._indices))
    # The run will report what is wrong with them.
    except Exception:
        return True


def _no_pictures(dataset: Any, key: str) -> str:
    if dataset.ann_file:
        return f'{key} is empty: {dataset.ann_file} lists no picture'
    folder, suffix = dataset.data_prefix.get('img_path') or '', getattr(dataset, 'img_suffix', '')
    found = Counter(path.suffix for path in Path(folder).rglob('*') if path.is_file())
    other = ', '.join(f'{count} of {name or "no suffix"}' for name, count in found.most_common(3))
    return (
        f'{key} is empty: {folder} has no file that ends in {suffix!r} ({other or "no file at all"}); set '
        f'{key}.img_suffix or {key}.data_prefix.img_path'
    )
