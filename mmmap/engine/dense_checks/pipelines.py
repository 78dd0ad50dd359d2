"""Finds the transforms in the pipelines of data sets."""

from collections.abc import Iterator
from typing import Any

from ..wrapped_datasets import inner_datasets, leaf_datasets


def transforms_in(part: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Each transform in a built pipeline with its key in the config, also those inside ``RandomChoice``."""
    if isinstance(part, list | tuple):
        for index, inner in enumerate(part):
            yield from transforms_in(inner, f'{key}[{index}]')
    elif type(part).__name__ == 'Compose':
        yield from transforms_in(part.transforms, key)
    elif callable(part):
        yield key, part
        # A list of transforms, or one of lists, of which each is a branch.
        inner = getattr(part, 'transforms', None)
        if inner is not None:
            yield from transforms_in(inner, f'{key}.transforms')


def pipeline_of(dataset: Any, key: str) -> list[tuple[str, Any]]:
    """The transforms of a data set that is no wrapper, with their keys in the config."""
    return list(transforms_in(getattr(dataset, 'pipeline', None), f'{key}.pipeline'))


def pipelines_around(dataset: Any, key: str, inner: Any) -> list[tuple[str, Any]]:
    """The transforms of a data set inside wrappers, and those of the wrappers around it, with their keys."""
    own = list(transforms_in(getattr(dataset, 'pipeline', None), f'{key}.pipeline'))
    if dataset is inner:
        return own
    for where, part in inner_datasets(dataset, key):
        if any(leaf is inner for _, leaf in leaf_datasets(part, where)):
            return own + pipelines_around(part, where, inner)
    return own


def annotation_loader(dataset: Any, key: str) -> tuple[str, Any] | None:
    """The transform of a data set that loads its annotations, with its key in the config; None if there is none."""
    return next((found for found in pipeline_of(dataset, key) if hasattr(found[1], '_load_seg_map')), None)


def evenly(number: int, most: int) -> list[int]:
    """At most so many indices, evenly spread over a number of samples, the first and the last among them."""
    if number <= most:
        return list(range(number))
    return sorted({round(index * (number - 1) / (most - 1)) for index in range(most)})
