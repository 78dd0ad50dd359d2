"""Names the file of a sample that cannot be loaded, or whose annotations do not fit it."""

import functools
import os
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset

from ..datasets.annotation_faults import image_fault, read_labels, size_fault
from ..utils.errors import UserError
from .config_parts import dense_kind, walk

_FILES = ('img_path', 'seg_map_path')


class FaultySampleError(UserError):
    """A sample of a data set that no training can use: the message names its files."""


class SampleLoadingError(RuntimeError):
    """An error in a pipeline: the message names the files of the sample."""


class _NamedSamples:
    """``prepare_data`` of mmengine's data sets, for detectors and segmentors.

    A file is compared with its annotations when it is first loaded, by its header alone. Labels of pixels are looked at
    each time. What a pipeline gives is not changed.
    """

    def __init__(self, prepare: Any) -> None:
        self.prepare = prepare
        #: Labels in masks that are no class, None while the run is not one of a segmentor or detector.
        self.ignored: frozenset[int] | None = None
        self.seen: set[tuple[str, ...]] = set()

    def __call__(self, dataset: BaseDataset, index: int) -> Any:
        # A later run in this process may be one of another task.
        if self.ignored is None or not _is_dense(dataset):
            return self.prepare(dataset, index)
        info: dict = dataset.get_data_info(index)
        files = tuple(str(info[key]) for key in _FILES if isinstance(info.get(key), str))
        if not files:
            return self.prepare(dataset, index)
        if files not in self.seen:
            fault = self.file_fault(info, dataset)
            if fault:
                raise FaultySampleError(fault)
            self.seen.add(files)
        try:
            sample = self.prepare(dataset, index)
        except (UserError, MemoryError):
            raise
        except Exception as error:
            fault = self.file_fault(info, dataset, whole=True) or _missing_masks(info, dataset, error)
            if fault:
                raise FaultySampleError(fault) from error
            text = ' '.join(str(error).split())
            if any(file in text for file in files):
                raise
            raise SampleLoadingError(f'{_name(info, files)}: {type(error).__name__}: {text}') from error
        if fault := self.label_fault(sample, dataset):
            raise FaultySampleError(f'{files[-1]} {fault}')
        return sample

    def file_fault(self, info: Any, dataset: Any, whole: bool = False) -> str | None:
        """What is wrong with the files of a sample, with their names; None if nothing is known."""
        image = info.get('img_path')
        if not image or getattr(dataset, 'backend_args', None) or not os.path.isfile(image):
            return None  # Not on this disk: the pipeline will say so.
        shape, stored, fault = image_fault(image, whole)
        if shape is None or stored is None:
            return f'{image} {fault}' if whole else None
        sides = info.get('height'), info.get('width')
        if all(isinstance(side, int) for side in sides):
            text = size_fault(shape, stored, sides, f'{_of(info)} in {dataset.ann_file} has')
            if text:
                return f'{image} {text}'
        mask = info.get('seg_map_path')
        # A panoptic mask is a picture, whose colours are numbers of segments.
        if not mask or 'segments_info' in info or not os.path.isfile(mask) or not hasattr(dataset, 'reduce_zero_label'):
            return None
        _, mask_shape, fault = read_labels(mask, whole)
        if fault:
            return f'{mask} {fault}' if whole or mask_shape is not None else None
        text = size_fault(shape, stored, mask_shape or shape, f'its mask {mask}')
        return f'{image} {text}' if text else None

    def label_fault(self, sample: Any, dataset: Any) -> str | None:
        """Which label in the mask of a loaded sample is no class; None if all are."""
        samples: Any = sample.get('data_samples') if isinstance(sample, dict) else None
        classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
        if not classes or not hasattr(dataset, 'reduce_zero_label') or not hasattr(samples, 'gt_sem_seg'):
            return None
        labels = np.asarray(samples.gt_sem_seg.data)
        number = len(classes)
        ignored = (self.ignored or frozenset()) | {getattr(dataset, 'ignore_index', 255)}
        beyond = labels[(labels >= number) | (labels < 0)]
        wrong = sorted(set(np.unique(beyond).tolist()) - ignored) if beyond.size else []
        if not wrong:
            return None
        if dataset.reduce_zero_label:
            wrong = [label + 1 for label in wrong]
        return (
            f'has the label {wrong[0]} in {int((labels == wrong[0] - bool(dataset.reduce_zero_label)).sum())} pixels, '
            f'the data set has {number} classes; pixels of no class have {", ".join(map(str, sorted(ignored)))}'
        )


def _is_dense(dataset: BaseDataset) -> bool:
    return any(base.__module__.startswith(('mmseg.', 'mmdet.')) for base in type(dataset).__mro__)


def _missing_masks(info: Any, dataset: Any, error: Exception) -> str | None:
    """Which objects of a sample have no mask, if an error says that one is missing."""
    if not isinstance(error, KeyError) or error.args != ('mask',):
        return None
    objects = info['instances']
    missing = sum('mask' not in part for part in objects)
    return (
        f'{info["img_path"]}: {missing} of the {len(objects)} objects of {_of(info)} in {dataset.ann_file} have no '
        'mask: their segmentation is [] or not there; tools/dataset_converters/check_annotations.py lists all'
    )


def _of(info: dict) -> str:
    return f'image {info["img_id"]!r}' if 'img_id' in info else 'its entry'


def _name(info: dict, files: tuple[str, ...]) -> str:
    named = ' and '.join(files)
    return f'{named} ({_of(info)})' if 'img_id' in info else named


def name_faulty_samples(cfg: Config) -> None:
    """Let the data sets of a run name the files of a sample that cannot be used.

    mmengine's method is wrapped once in a process; for models other than segmentors and detectors it does what it did.

    Args:
        cfg (Config): The config of the run.
    """
    named = vars(BaseDataset)['prepare_data']
    if not hasattr(named, 'named_samples'):
        samples = _NamedSamples(named)

        @functools.wraps(named)
        def prepare_data(self: BaseDataset, idx: int) -> Any:
            return samples(self, idx)

        prepare_data.named_samples = samples  # type: ignore[attr-defined]
        BaseDataset.prepare_data = prepare_data
        named = prepare_data
    dense = 'model' in cfg and dense_kind(cfg)
    parts = [part for _, part in walk(cfg._cfg_dict) if isinstance(part, dict)] if dense else []
    labels = (part.get(key) for part in parts for key in ('ignore_index', 'seg_pad_val'))
    named.named_samples.ignored = frozenset(v for v in labels if isinstance(v, int)) | {255} if dense else None
    named.named_samples.seen.clear()
