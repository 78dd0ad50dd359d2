"""Checks the number of classes of each head, and that a label means the same class in all data sets of a run."""

import re
from collections.abc import Iterator
from typing import Any

from mmengine.runner import Runner
from torch import nn

from ...utils.class_names import listed, names_of
from ...utils.errors import UserError
from .dense_runs import datasets, dense_model, is_a, is_segmentor

# Names of classes that a message shows as a tuple to copy.
_COPIED = 30
# Parts of a detector that have classes of their own: proposals, pretrained features, a teacher, noisy queries.
_OTHER_PARTS = re.compile(r'(^|\.)(\w*rpn_head|backbone|neck|data_preprocessor|teacher\w*|dn_query_generator)(\.|$)')
# Heads whose classes are not those of the data set: of edges, of COCO's stuff, of proposals.
_OTHER_HEADS = re.compile('STDCHead|FusedSemanticHead|RPN')


def check_classes(runner: Runner) -> None:
    """Check the number of classes of all heads against each data set, and the classes of the data sets.

    Raises:
        UserError: With the key of the config and both numbers, or the first class that differs.
    """
    model: Any = dense_model(runner)
    # Depth has no classes; with a text encoder they are words.
    if model is None or is_a(model, 'DepthEstimator', 'mmseg') or hasattr(model, 'language_model'):
        return
    named = [(key, dataset, names) for key, dataset in datasets(runner) if (names := class_names(dataset, key))]
    for key, dataset, names in named:
        first_key, first, known = named[0]
        # The heads are right for the training: not they are to be changed if another set has fewer classes.
        other_order = _order_fault(f'{key}.metainfo.classes', names, f'{first_key}.metainfo.classes', known)
        if other_order is not None:
            raise UserError(other_order)
        for fault in _number_faults(model, dataset, key, names):
            raise UserError(fault)
        zero, other = (getattr(part, 'reduce_zero_label', False) for part in (dataset, first))
        if bool(zero) != bool(other):
            raise UserError(
                f'{key}.reduce_zero_label={zero}, {first_key}.reduce_zero_label={other}: one label would mean two '
                'classes; set both alike'
            )


def class_names(dataset: Any, key: str) -> tuple[str, ...] | None:
    """The class names of a data set that is no wrapper; None if it has none.

    Raises:
        UserError: If ``metainfo.classes`` is no list of names.
    """
    meta = getattr(dataset, 'metainfo', None)
    classes = meta.get('classes') if isinstance(meta, dict) else None
    if isinstance(classes, str):
        raise UserError(f'{key}.metainfo.classes is the text {classes!r}, not a list: write classes=({classes!r},)')
    return names_of(classes, f'{key}.metainfo')


def as_tuple(names: tuple[str, ...]) -> str:
    """Names as they are written into a config; only the first of very many."""
    shown = ', '.join(map(repr, names[:_COPIED]))
    return f'({shown}, ... {len(names) - _COPIED} more)' if len(names) > _COPIED else f'({shown},)'


def heads(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The parts of a detector or segmentor that predict the classes of a data set, with their keys in the config."""
    for name, module in model.named_modules():
        if not isinstance(getattr(module, 'num_classes', None), int) or _OTHER_PARTS.search(name):
            continue
        if any(_OTHER_HEADS.search(kind.__name__) for kind in type(module).__mro__):
            continue
        # The heads of a segmentor are these alone; what is inside them has its numbers.
        if is_segmentor(model) and not re.fullmatch(r'(decode_head|auxiliary_head)(\.\d+)?', name):
            continue
        yield 'model.' + re.sub(r'\.(\d+)', r'[\1]', re.sub(r'^student\.', 'detector.', name)), module


def _number_faults(model: nn.Module, dataset: Any, key: str, names: tuple[str, ...]) -> Iterator[str]:
    data = f'{key}.metainfo.classes has {len(names)} ({listed(names)})'
    found = list(heads(model))
    parts = [dataset.metainfo.get(f'{kind}_classes') for kind in ('thing', 'stuff')]
    panoptic = all(part is not None for part in parts) and any(_counts_stuff(head) for _, head in found)
    if panoptic and sum(map(len, parts)) != len(names):
        yield (
            f'{data}, thing_classes {len(parts[0])} and stuff_classes {len(parts[1])}: set all three in '
            f'{key}.metainfo, things first'
        )
    for where, head in found:
        if is_segmentor(model):
            if head.num_classes != len(names):
                yield _wrong_number(where, 'num_classes', head.num_classes, len(names), data)
            yield from _one_output_faults(where, head)
        elif not _counts_stuff(head):
            # Boxes and masks of instances are of things alone.
            number = len(parts[0]) if panoptic else len(names)
            if head.num_classes != number and not getattr(head, 'class_agnostic', False):
                yield _wrong_number(where, 'num_classes', head.num_classes, number, data)
        elif panoptic:
            for kind, part in zip(('thing', 'stuff'), parts, strict=True):
                option = 'num_things_classes' if kind == 'thing' else 'num_stuff_classes'
                if getattr(head, option) != len(part):
                    data = f'{key}.metainfo.{kind}_classes has {len(part)} ({listed(part)})'
                    yield _wrong_number(where, option, getattr(head, option), len(part), data)
        elif head.num_things_classes + head.num_stuff_classes != len(names):
            yield (
                f'{where}.num_things_classes={head.num_things_classes} and num_stuff_classes={head.num_stuff_classes}, '
                f'but {data}: set them to {len(names)} and 0'
            )


def _wrong_number(where: str, option: str, number: int, right: int, data: str) -> str:
    return f'{where}.{option}={number}, but {data}: set {where}.{option}={right}'


def _counts_stuff(head: Any) -> bool:
    """Whether a head of a detector counts things and stuff by themselves."""
    return hasattr(head, 'num_things_classes') and hasattr(head, 'num_stuff_classes')


def _one_output_faults(where: str, head: Any) -> Iterator[str]:
    """A softmax over one output is always 1, whatever the head has learnt."""
    if head.num_classes == 1:
        yield (
            f'{where}.num_classes=1: one class is predicted for every pixel; name the background as the first class of '
            f'metainfo.classes and set {where}.num_classes=2'
        )
    losses = getattr(head, 'loss_decode', None)
    losses = losses if isinstance(losses, nn.ModuleList) else [losses]
    if getattr(head, 'out_channels', None) == 1 and not any(getattr(loss, 'use_sigmoid', True) for loss in losses):
        yield f'{where}.out_channels=1 with a softmax learns nothing: set {where}.loss_decode.use_sigmoid=True'


def _order_fault(key: str, names: tuple[str, ...], first_key: str, known: tuple[str, ...]) -> str | None:
    """Where two lists of classes give one label two meanings."""
    if names == known:
        return None
    if len(names) != len(known):
        return f'{key} has {len(names)} classes ({listed(names)}), {first_key} has {len(known)} ({listed(known)})'
    label = next(index for index, pair in enumerate(zip(names, known, strict=True)) if pair[0] != pair[1])
    same = ', in another order' if sorted(names) == sorted(known) else ''
    return (
        f'{key} has other classes than {first_key}{same}: label {label} is {names[label]!r} in the former and '
        f'{known[label]!r} in the latter; give both the same list'
    )
