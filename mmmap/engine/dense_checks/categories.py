"""Compares the categories of annotation files in COCO's format with the class names of the config.

mmdet numbers the labels by the order of the categories in the file, and the names by the order in the config. Names
that the file does not have are left out without a word. So the label of a class can be that of another name.
"""

from collections import Counter
from typing import Any

from mmengine.runner import Runner

from ...utils.class_names import listed, names_missing
from ...utils.errors import UserError
from .annotation_files import categories_of
from .classes import as_tuple, class_names
from .dense_runs import datasets, dense_model, is_detector, loops
from .pipelines import evenly

# Pictures of a data set that are looked up in the file of the metric.
_LOOKED_AT = 2000


def check_categories(runner: Runner) -> None:
    """Check that each label of an annotation file has the name that the config gives it.

    Categories that the config leaves out, and classes at the end of its list that the file does not have, are warnings.

    Raises:
        UserError: With the key of the config and the list of classes to write.
    """
    model: Any = dense_model(runner)
    if model is None or not is_detector(model):
        return
    for key, dataset in datasets(runner):
        names = class_names(dataset, key)
        if names:
            _check_names(runner, dataset, key, names)
    for phase, loop in loops(runner):
        for index, metric in enumerate(getattr(getattr(loop, 'evaluator', None), 'metrics', ())):
            api = getattr(metric, '_coco_api', None)
            if api is not None:
                several = f'[{index}]' if len(loop.evaluator.metrics) > 1 else ''
                _check_metric(runner, api, f'{phase}_evaluator{several}.ann_file', phase, loop.dataloader.dataset)


def dataset_fault(dataset: Any, key: str) -> str | None:
    """Why the classes of a data set do not name its labels; None if they do, or its file is of another format."""
    categories, names = _file_categories(dataset), class_names(dataset, key)
    if not categories or not names:
        return None
    labelled = tuple(categories[number] for number in sorted(dataset.cat2label, key=dataset.cat2label.get))
    return names_fault(labelled, names, tuple(categories.values()), f'{key}.metainfo.classes', dataset.ann_file)


def _file_categories(dataset: Any) -> dict[int, str]:
    """The categories in the annotation file of a data set of mmdet; none if it is of another format."""
    if getattr(dataset, 'cat2label', None) is None or not dataset.ann_file:
        return {}
    categories = categories_of(dataset.ann_file, getattr(dataset, 'backend_args', None)) or {}
    return categories if set(dataset.cat2label) <= set(categories) else {}


def _check_names(runner: Runner, dataset: Any, key: str, names: tuple[str, ...]) -> None:
    if fault := dataset_fault(dataset, key):
        raise UserError(fault)
    categories, where = _file_categories(dataset), f'{key}.metainfo.classes'
    if not categories:
        return
    labelled = [categories[number] for number in dataset.cat2label]
    if rest := names_missing(labelled, names):
        runner.logger.warning(f'{where}: {dataset.ann_file} has no category {listed(rest)}: no object is of it.')
    counts = getattr(dataset, 'cat_img_map', {})
    left_out = {number: name for number, name in categories.items() if number not in dataset.cat2label}
    # Some files have a category for all others, of which there is no object.
    if number := sum(len(counts.get(category, ())) for category in left_out):
        runner.logger.warning(
            f'{where} leaves out {len(left_out)} of the {len(categories)} categories of {dataset.ann_file} '
            f'({listed(list(left_out.values()))}) with {number} annotations.'
        )
    if strays := {number: len(images) for number, images in counts.items() if number not in categories and images}:
        runner.logger.warning(
            f'{key}.ann_file: {sum(strays.values())} annotations of {dataset.ann_file} have a category_id that is no '
            f'category ({", ".join(map(str, list(strays)[:3]))}): they are not used.'
        )


def names_fault(
    labelled: tuple[str, ...], names: tuple[str, ...], of_file: tuple[str, ...], where: str, path: str
) -> str | None:
    """Why the classes of the config do not name the labels of an annotation file; None if they do.

    Args:
        labelled (tuple[str]): The category of each label, as mmdet takes them from the file.
        names (tuple[str]): The classes of the config.
        of_file (tuple[str]): All categories of the file, in its order.
        where (str): The key of the classes in the config.
        path (str): The file.
    """
    write = f'metainfo=dict(classes={as_tuple(of_file)})'
    if twice := [name for name, count in Counter(of_file).items() if count > 1 and name in names]:
        return f'{where}: {path} has several categories named {listed(twice)}, so that labels cannot be told apart'
    missing, unused = names_missing(of_file, names), names_missing(names, of_file)
    if missing and (unused or labelled != names[: len(labelled)]):
        return (
            f'{where}: {path} has no category {listed(missing)}, which mmdet leaves out without a word; it has '
            f'{listed(unused or of_file)}. Write {write}, and num_classes={len(of_file)} in the heads'
        )
    if labelled != names[: len(labelled)]:
        ordered = tuple(name for name in of_file if name in names)
        label = next(index for index, name in enumerate(labelled) if (name,) != names[index : index + 1])
        named = repr(names[label]) if label < len(names) else 'nothing'
        return (
            f'{where}: label {label} is {labelled[label]!r} by the order of the categories in {path}, which mmdet '
            f'takes, but {named} in the config: write metainfo=dict(classes={as_tuple(ordered)})'
        )
    return None


def _check_metric(runner: Runner, api: Any, key: str, phase: str, dataset: Any) -> None:
    """Compare the annotation file of a metric with the data set that it judges."""
    meta = getattr(dataset, 'metainfo', None)
    names = class_names(dataset, f'{phase}_dataloader.dataset')
    if not isinstance(meta, dict) or not names:
        return
    of_file = {category['id']: category['name'] for category in api.dataset.get('categories', ())}
    labelled = tuple(of_file[number] for number in api.get_cat_ids(cat_names=names))
    if fault := names_fault(labelled, names, tuple(of_file.values()), key, 'the file of the metric'):
        raise UserError(fault)
    if not hasattr(dataset, 'get_data_info'):
        return
    images = [dataset.get_data_info(index).get('img_id') for index in evenly(len(dataset), _LOOKED_AT)]
    known = set(api.get_img_ids())
    if strays := [number for number in images if number not in known]:
        raise UserError(
            f'{key} is the file of another data set: it lacks {len(strays)} of {len(images)} pictures of '
            f'{phase}_dataloader.dataset, first img_id={strays[0]}; give the ann_file of that data set'
        )
    if len(known) > len(dataset):
        runner.logger.warning(
            f'{key} has {len(known)} pictures and {phase}_dataloader.dataset {len(dataset)}: the objects in the others '
            'count as not found.'
        )
