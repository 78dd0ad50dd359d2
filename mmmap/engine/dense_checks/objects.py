"""Checks the objects of detection data sets: masks of all, pictures with very many, and those with none."""

import copy
from collections.abc import Iterator
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.runner import Runner

from ...utils.errors import UserError
from .dense_runs import datasets, dense_model, is_detector, is_training_key, kept_random_state, loops
from .pipelines import annotation_loader, evenly, pipelines_around

# Pictures of a data set whose lists of objects are read, and pictures without objects that are tried.
_LOOKED_AT, _TRIED = 2000, 4


def check_objects(runner: Runner) -> None:
    """Check that the annotations have the masks that a detector needs, and that all pictures and objects are used.

    Pictures with more objects than are predicted, and pictures without objects that no one asked for, are warnings.

    Raises:
        UserError: With the key of the config.
    """
    model: Any = dense_model(runner)
    if model is None or not is_detector(model):
        return
    found = [(key, dataset) for key, dataset in datasets(runner) if isinstance(dataset, BaseDataset)]
    for key, dataset in found:
        samples = [dataset.get_data_info(index) for index in evenly(len(dataset), _LOOKED_AT)]
        if any(not isinstance(sample.get('instances'), list) for sample in samples):
            continue
        _check_masks(dataset, key, samples, _has_mask_head(model))
        _check_crowds(runner, model, key, samples)
        if is_training_key(key):
            _check_negatives(runner, dataset, key, samples)
    _check_metrics(runner, model)


def _has_mask_head(model: Any) -> bool:
    return bool(getattr(getattr(model, 'roi_head', None), 'with_mask', False))


def _boxes_alone(has_mask_head: bool) -> str:
    without = 'model.roi_head.mask_roi_extractor and mask_head to None, ' if has_mask_head else ''
    return (
        'for boxes alone take a config without masks, such as mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py, or '
        f"set {without}with_mask=False in LoadAnnotations and metric='bbox' in the evaluators"
    )


def _check_masks(dataset: BaseDataset, key: str, samples: list[dict], has_mask_head: bool) -> None:
    loader = annotation_loader(dataset, key)
    if loader is None:
        return
    where, transform = loader
    if not getattr(transform, 'with_mask', False):
        if has_mask_head and is_training_key(key):
            raise UserError(
                f'{where}.with_mask is not set, and the model has a mask head: set {where}.with_mask=True; '
                f'{_boxes_alone(True)}'
            )
        return
    objects = [(sample, instance) for sample in samples for instance in sample['instances']]
    bare = [sample for sample, instance in objects if 'mask' not in instance]
    if not bare:
        return
    source = dataset.ann_file or key
    if len(bare) == len(objects):
        raise UserError(
            f'{where}.with_mask=True, but the annotations of {source} have boxes without segmentation: '
            f'{_boxes_alone(has_mask_head)}'
        )
    raise UserError(
        f'{where}.with_mask=True, but {len(bare)} of {len(objects)} annotations in {source} have no segmentation, '
        f'first one of {bare[0].get("img_path")}: add it, or remove these annotations'
    )


def _check_metrics(runner: Runner, model: Any) -> None:
    """Check that the metrics for masks have masks of both the model and the annotation file."""
    for phase, loop in loops(runner):
        for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
            kinds = set(getattr(metric, 'metrics', None) or ())
            if kinds & {'bbox', 'segm'} and not getattr(metric, 'format_only', False):
                _check_truth(runner, getattr(metric, '_coco_api', None), phase)
            if 'segm' not in kinds:
                continue
            if hasattr(model, 'roi_head') and not _has_mask_head(model):
                raise UserError(
                    f"{phase}_evaluator.metric has 'segm', but the model predicts no masks: set "
                    f"{phase}_evaluator.metric='bbox'"
                )
            objects = getattr(getattr(metric, '_coco_api', None), 'anns', None) or {}
            bare = [number for number, entry in objects.items() if not entry.get('segmentation')]
            if bare:
                raise UserError(
                    f"{phase}_evaluator.metric has 'segm', but {len(bare)} of {len(objects)} annotations of its "
                    f"ann_file have no segmentation, first id={bare[0]}: set {phase}_evaluator.metric='bbox'"
                )


def _check_truth(runner: Runner, api: Any, phase: str) -> None:
    """Check that COCO's evaluation finds objects in its file, and in each object what it reads."""
    if api is None:
        return
    objects = api.anns
    if not objects:
        runner.logger.warning(
            f'{phase}_evaluator.ann_file has no annotations: all its numbers will be -1. Give a file with objects, or '
            f'set {phase}_evaluator.format_only=True.'
        )
    for name in ('bbox', 'area', 'iscrowd'):
        if lacking := [number for number, entry in objects.items() if name not in entry]:
            cure = ': write iscrowd=0 into each' if name == 'iscrowd' else ': write it into the file'
            raise UserError(
                f'{phase}_evaluator.ann_file: {len(lacking)} of {len(objects)} annotations lack {name}, which the '
                f'evaluation reads, first id={lacking[0]}{cure}'
            )


def _limits(model: Any) -> Iterator[tuple[str, int]]:
    """The most objects that a detector predicts in a picture, with the keys in the config."""
    test_cfg = getattr(model, 'test_cfg', None) or {}
    for key, options in (('model.test_cfg.rcnn', test_cfg.get('rcnn')), ('model.test_cfg', test_cfg)):
        most = options.get('max_per_img') if isinstance(options, dict) else None
        if isinstance(most, int) and most > 0:
            yield f'{key}.max_per_img', most
    queries = getattr(model, 'num_queries', None)
    if isinstance(queries, int):
        yield 'model.num_queries', queries


def _check_crowds(runner: Runner, model: Any, key: str, samples: list[dict]) -> None:
    counts = [sum(not instance.get('ignore_flag') for instance in sample['instances']) for sample in samples]
    for setting, most in _limits(model):
        if crowded := [count for count in counts if count > most]:
            runner.logger.warning(
                f'{key}: {len(crowded)} of {len(counts)} pictures have more than {most} objects, the most '
                f'{max(crowded)}, but {setting}={most} is the most that is predicted: set it to {max(crowded)} or more.'
            )


def _check_negatives(runner: Runner, dataset: BaseDataset, key: str, samples: list[dict]) -> None:
    """Check that pictures without objects, if they are not filtered out, come through the pipeline."""
    options = dataset.filter_cfg or {}
    empty = [sample for sample in samples if not sample['instances']]
    if options.get('filter_empty_gt', False) or not empty:
        return
    steps = pipelines_around(runner.train_loop.dataloader.dataset, 'train_dataloader.dataset', dataset)
    strict = next((pair for pair in steps if getattr(pair[1], 'allow_negative_crop', True) is False), None)
    strict = strict or _dropping(dataset, key, empty)
    if strict is None:
        return
    where, transform = strict
    cure = f'set {where}.allow_negative_crop=True' if hasattr(transform, 'allow_negative_crop') else 'remove it'
    fault = (
        f'{where}: {type(transform).__name__} drops pictures without objects, of which {dataset.ann_file or key} has '
        f'{len(empty)} (of {len(samples)} pictures): {cure} to train on them, or set '
        f'{key}.filter_cfg.filter_empty_gt=True to leave them out'
    )
    if 'filter_empty_gt' in options:
        raise UserError(fault)
    runner.logger.warning(fault)


def _dropping(dataset: BaseDataset, key: str, empty: list[dict]) -> tuple[str, Any] | None:
    """The first transform that returns no sample for pictures without objects, each of them twice."""
    try:
        steps: Any = copy.deepcopy(getattr(dataset.pipeline, 'transforms', ()))
    # A transform holds something that has no copy.
    except Exception:
        return None
    dropped: list[tuple[str, Any] | None] = []
    with kept_random_state():
        for sample in [empty[index] for index in evenly(len(empty), _TRIED)] * 2:
            results: Any = copy.deepcopy(sample)
            dropped.append(None)
            for index, step in enumerate(steps):
                try:
                    results = step(results)
                # The training will report it.
                except Exception:
                    break
                if results is None:
                    dropped[-1] = f'{key}.pipeline[{index}]', step
                    break
    return dropped[0] if all(dropped) else None
