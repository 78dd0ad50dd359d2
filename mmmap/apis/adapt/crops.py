"""The sizes to which the pictures of a config are cut."""

from collections.abc import Iterator
from typing import Any

from mmmap.engine.config_parts import type_name, walk


def crop_sizes(pipeline: Any) -> Iterator[int]:
    """The sizes to which the transforms of a pipeline cut its pictures, the last ones last."""
    for _, step in walk(pipeline):
        if isinstance(step, dict) and 'Crop' in type_name(step.get('type', '')):
            size = step.get('scale', step.get('crop_size'))
            if isinstance(size, int | list | tuple):
                yield max(size) if isinstance(size, list | tuple) else size
