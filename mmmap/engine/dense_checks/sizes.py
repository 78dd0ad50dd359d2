"""The check that the patches of the backbone divide every picture that a detector or segmentor will get."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.runner import Runner
from torch import Tensor, nn

from ...models.backbones.map_hybrid import MAPHybrid
from ...utils.errors import UserError
from ..wrapped_datasets import leaf_datasets
from .dense_runs import dense_model, is_detector, is_training_key, kept_random_state, loaders
from .pipelines import evenly, pipelines_around

# So many pictures of a set are read at most, and of so many the sizes in the annotations are compared.
PICTURES, ANNOTATIONS = 16, 1000
# What a transform that sets the size of a picture has.
SIZED = ('scale', 'scales', 'crop_size', 'size', 'size_divisor', 'img_scale', 'scale_factor', 'ratio_range')

Size = tuple[int, int]


def check_sizes(runner: Runner) -> None:
    """Refuse pictures that the patch size of :class:`MAPHybrid` does not divide when they reach it.

    Where the data preprocessor makes all sizes whole patches, nothing is read. Elsewhere some pictures go through the
    pipeline, at most 16 of each set.

    Args:
        runner (Runner): A Runner with its model and loops built.

    Raises:
        UserError: If a size is not divisible; the line names the key of the data and the setting that cures it.
    """
    model: Any = dense_model(runner)
    preprocessor: Any = getattr(model, 'data_preprocessor', None)
    # Of a teacher and its student the student learns; their preprocessor is around that of each branch.
    model = getattr(model, 'student', model)
    preprocessor = getattr(preprocessor, 'data_preprocessor', preprocessor)
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, MAPHybrid) or not _known(preprocessor):
        return
    for key, loader in loaders(runner):
        if is_detector(model):
            _check_detector(preprocessor, key, loader.dataset, backbone.patch_size)
        elif is_training_key(key):
            _check_segmentor_training(preprocessor, key, loader.dataset, backbone.patch_size)
        else:
            _check_segmentor_test(model, preprocessor, key, loader.dataset, backbone.patch_size)


def _known(preprocessor: Any) -> bool:
    """Whether a data preprocessor pads as those of mmdet and mmseg do."""
    module = type(preprocessor).forward.__module__ if isinstance(preprocessor, nn.Module) else ''
    return module.split('.')[0] in ('mmdet', 'mmseg')


def _up(number: int, step: int) -> int:
    return step * math.ceil(number / step)


def _check_detector(preprocessor: Any, key: str, dataset: Any, patch: int) -> None:
    divisor = preprocessor.pad_size_divisor
    whole, least = divisor % patch == 0, (0, 0)
    for index, augment in enumerate((preprocessor.batch_augments or ()) if is_training_key(key) else ()):
        where = f'model.data_preprocessor.batch_augments[{index}]'
        name = type(augment).__name__
        if name == 'BatchFixedSizePad':
            least = tuple(augment.size)
            if any(side % patch for side in least):
                cure = tuple(_up(side, patch) for side in least)
                raise UserError(f'{where}.size={least}: patches of {patch} pixels do not divide it; set it to {cure}')
            continue
        step = getattr(augment, '_size_divisor' if name == 'BatchSyncRandomResize' else 'pad_size_divisor', 0)
        if step % patch:
            option = 'size_divisor' if name == 'BatchSyncRandomResize' else 'pad_size_divisor'
            raise UserError(
                f'{where}.{option}={step}: patches of {patch} pixels do not divide all sizes that it makes; set it to '
                f'{_up(step, patch)}'
            )
        whole = whole or name == 'BatchResize'
    if not whole:
        _compare(
            _sizes(dataset, key),
            lambda size: (max(_up(size[0], divisor), least[0]), max(_up(size[1], divisor), least[1])),
            key,
            patch,
            f'model.data_preprocessor.pad_size_divisor={_up(divisor, patch)}',
        )


def _one_of_two(options: Any, where: str, patch: int) -> None:
    """Refuse what mmseg refuses in the first iteration without a word on where it stands."""
    size, divisor = options.get('size'), options.get('size_divisor')
    if size is not None and divisor is not None:
        raise UserError(
            f'{where} has size={size} and size_divisor={divisor}, and mmseg takes one of the two: remove size_divisor, '
            f'and for validation and test set model.data_preprocessor.test_cfg=dict(size_divisor={patch})'
        )
    if size is None and divisor is None:
        raise UserError(
            f'{where} has neither size nor size_divisor, and mmseg wants one of the two: set size to crop_size of '
            f'RandomCrop, or size_divisor={patch}'
        )


def _check_segmentor_training(preprocessor: Any, key: str, dataset: Any, patch: int) -> None:
    where, size, divisor = 'model.data_preprocessor', preprocessor.size, preprocessor.size_divisor
    _one_of_two(dict(size=size, size_divisor=divisor), where, patch)
    if size is None:
        if divisor % patch:
            cure = f'{where}.size_divisor={_up(divisor, patch)}'
            _compare(_sizes(dataset, key), lambda found: _padded(found, divisor), key, patch, cure)
        return
    if not any(side % patch for side in size):
        if _cropped_to(dataset, key, size):
            return
        cure = f'{where}=dict(size=None, size_divisor={patch}), or crop them to size={tuple(size)} by RandomCrop'
    else:
        cure = f'{where}.size={tuple(_up(side, patch) for side in size)}, and crops of that size'
    _compare(_sizes(dataset, key), lambda found: (max(found[0], size[0]), max(found[1], size[1])), key, patch, cure)


def _padded(size: Size, divisor: int | None) -> Size:
    return (_up(size[0], divisor), _up(size[1], divisor)) if divisor else size


def _check_segmentor_test(model: Any, preprocessor: Any, key: str, dataset: Any, patch: int) -> None:
    where = 'model.data_preprocessor.test_cfg'
    options = preprocessor.test_cfg or {}
    if options:
        _one_of_two(options, where, patch)
    size, divisor = options.get('size'), options.get('size_divisor')
    window = tuple(model.test_cfg['crop_size']) if (model.test_cfg or {}).get('mode') == 'slide' else None
    wrong_window = window is not None and any(side % patch for side in window)
    if divisor and divisor % patch == 0 and not wrong_window:
        return

    def seen(found: Size) -> Size:
        padded = (max(found[0], size[0]), max(found[1], size[1])) if size else _padded(found, divisor)
        # A window is cut to a smaller picture.
        return (min(padded[0], window[0]), min(padded[1], window[1])) if window else padded

    cure = f'{where}=dict(size_divisor={_up(divisor or 1, patch)})'
    if window is not None and wrong_window:
        cure = f'model.test_cfg.crop_size={tuple(_up(side, patch) for side in window)}, and {cure}'
    _compare(_sizes(dataset, key), seen, key, patch, cure)


def _compare(sizes: Iterator[Size], seen: Callable[[Size], Size], key: str, patch: int, cure: str) -> None:
    for size in sizes:
        height, width = seen(size)
        if height % patch or width % patch:
            raise UserError(
                f'{key}: pictures of {height}x{width} pixels (height x width) reach the backbone, and its patches of '
                f'{patch} pixels do not divide that: set {cure}'
            )


def _last_size(dataset: Any, key: str) -> list[tuple[str, Any]]:
    """The last transform of each pipeline that sets a size, with its key in the config."""
    found = []
    for where, leaf in leaf_datasets(dataset, f'{key}.dataset'):
        transforms = pipelines_around(dataset, f'{key}.dataset', leaf) or [(where, None)]
        sized = [step for step in transforms if any(getattr(step[1], name, None) is not None for name in SIZED)]
        found.append(sized[-1] if sized else (where, None))
    return found


def _cropped_to(dataset: Any, key: str, size: Size) -> bool:
    """Whether pictures are crops of at most a size, whatever they were before."""
    for where, step in _last_size(dataset, key):
        # A branch of a choice says nothing of the other branches.
        if type(step).__name__ != 'RandomCrop' or '.transforms' in where.partition('.pipeline')[2]:
            return False
        crop = step.crop_size
        if not isinstance(crop, tuple | list) or any(not isinstance(side, int) for side in crop):
            return False
        if crop[0] > size[0] or crop[1] > size[1] or getattr(step, 'crop_type', 'absolute') != 'absolute':
            return False
    return True


def _sizes(dataset: Any, key: str) -> Iterator[Size]:
    """Sizes (height, width) of pictures as they leave a data set, each as it is read.

    All sizes of a random choice among some, and those of some pictures, of as many sizes as the annotations have.
    """
    for _, step in _last_size(dataset, key):
        resize = getattr(step, 'resize', None)
        if getattr(step, 'scales', None) is not None and getattr(resize, 'keep_ratio', True) is False:
            for scale in step.scales:
                yield (scale, scale) if isinstance(scale, int) else (scale[1], scale[0])
    with kept_random_state():
        trial = _trial(dataset)
        for index in _chosen(trial):
            try:
                sample = trial[index]
            except Exception:
                # What cannot be read is told by the iteration that reads it.
                continue
            yield from _shapes(sample.get('inputs') if isinstance(sample, dict) else None)


def _trial(dataset: Any) -> Any:
    """A data set with the same samples and with transforms of its own, as some keep pictures for the next one."""
    trial = copy.copy(dataset)
    for name, value in vars(dataset).items():
        if name == 'pipeline':
            trial.pipeline = copy.deepcopy(value)
        elif name == 'dataset':
            trial.dataset = _trial(value)
        elif name == 'datasets':
            trial.datasets = [_trial(part) for part in value]
    return trial


def _chosen(dataset: Any) -> list[int]:
    """Samples of different sizes by their annotations, and others evenly spread over the set."""
    by_size: dict[Any, int] = {}
    if hasattr(dataset, 'get_data_info'):
        for index in evenly(len(dataset), ANNOTATIONS):
            info = dataset.get_data_info(index)
            by_size.setdefault((info.get('height'), info.get('width')), index)
    different = list(by_size.values())
    chosen = [different[i] for i in evenly(len(different), PICTURES)]
    return list(dict.fromkeys([*chosen, *evenly(len(dataset), PICTURES)]))[:PICTURES]


def _shapes(inputs: Any) -> Iterator[Size]:
    if isinstance(inputs, Tensor) and inputs.ndim >= 3:
        yield inputs.shape[-2], inputs.shape[-1]
    elif isinstance(inputs, dict | list | tuple):
        # Pictures of test-time augmentation or of several branches.
        for part in inputs.values() if isinstance(inputs, dict) else inputs:
            yield from _shapes(part)
