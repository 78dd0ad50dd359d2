"""Makes the views of test-time augmentation from the pipeline of the test itself, so that their sizes are its own."""

import copy
import math
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..utils.errors import UserError
from .config_parts import type_name, walk

#: Sizes of the views, as shares of the size of the test, for configs without ``tta_ratios``.
RATIOS = (0.75, 1.0, 1.25)
# A padding to a fixed size stays a multiple of this, which is one of most strides.
_DIVISOR = 32


def derived_pipeline(pipeline: list[dict], ratios: tuple[float, ...], mirrored: bool, where: str) -> list[dict]:
    """Make a pipeline for several views of an image from one for a single view.

    Args:
        pipeline (list[dict]): The pipeline of a test of mmseg or mmdet, which starts with the loading of the image.
        ratios (tuple[float, ...]): Sizes of the views. They scale each resizing of the pipeline; if it has none, they
            are shares of the size of the file.
        mirrored (bool): Whether each size is seen mirrored as well.
        where (str): The key of the pipeline in the config, for messages.

    Returns:
        list[dict]: Loading, then ``TestTimeAug``. The first view is nearest to that of the test.

    Raises:
        UserError: If it has steps that cannot be scaled.
    """
    for step in pipeline:
        if 'Crop' in type_name(step['type']) or 'Random' in type_name(step['type']) or 'transforms' in step:
            raise UserError(
                f'--tta: {where} has a {type_name(step["type"])}, for which no views can be made: write tta_pipeline'
            )
    steps = copy.deepcopy(list(pipeline[1:]))
    if not _sizes(steps):
        steps.insert(0, dict(type='Resize', scale_factor=1.0, keep_ratio=True))
    views = [
        dict(type='Compose', transforms=_view(steps, ratio, flip))
        for ratio in sorted(ratios, key=lambda ratio: abs(ratio - 1))
        for flip in ((0.0, 1.0) if mirrored else (0.0,))
    ]
    return [copy.deepcopy(pipeline[0]), dict(type='TestTimeAug', transforms=[views])]


def _view(steps: list[dict], ratio: float, flip: float) -> list[dict]:
    """The steps of one view. ``flip`` is 1 if it is mirrored."""
    view = copy.deepcopy(steps)
    last = max(index for index, step in enumerate(view) if _is_resize(step))
    for step in view:
        if _is_resize(step):
            if step.get('scale') is not None:
                step['scale'] = _scaled(step['scale'], ratio)
                if 'max_size' in step:
                    step['max_size'] = _scaled(step['max_size'], ratio)
            else:
                factors = step['scale_factor']
                many = isinstance(factors, (tuple, list))
                step['scale_factor'] = tuple(f * ratio for f in factors) if many else factors * ratio
        elif type_name(step['type']) == 'Pad' and step.get('size') and ratio != 1:
            step['size'] = tuple(math.ceil(side * ratio / _DIVISOR) * _DIVISOR for side in step['size'])
        if 'meta_keys' in step:
            # By these the predictions are mirrored back.
            step['meta_keys'] = tuple(dict.fromkeys((*step['meta_keys'], 'flip', 'flip_direction')))
    # Before a padding, which would be at the other side.
    view.insert(last + 1, dict(type='RandomFlip', prob=flip, direction='horizontal'))
    return view


def _is_resize(step: dict) -> bool:
    return 'Resize' in type_name(step['type']) and any(step.get(key) is not None for key in ('scale', 'scale_factor'))


def _scaled(size: Any, ratio: float) -> Any:
    if isinstance(size, (tuple, list)):
        return tuple(_scaled(side, ratio) for side in size)
    # mmcv takes -1 and infinity for a side without a bound.
    return size if size is None or size <= 0 or math.isinf(size) else max(1, round(size * ratio))


def _sizes(part: Any) -> list[Any]:
    """What the resizing steps of a pipeline, also those within others, resize to; None for shares of the file's."""
    steps = [step for _, step in walk(part) if isinstance(step, dict) and step.get('type') and _is_resize(step)]
    sizes = [step.get('scale') for step in steps]
    return [tuple(size) if isinstance(size, list) else size for size in sizes]


def mirrors(pipeline: Any) -> bool:
    """Whether a pipeline flips images horizontally, with any chance."""
    for _, step in walk(pipeline):
        if isinstance(step, dict) and step.get('type') and type_name(step['type']) == 'RandomFlip':
            chance, direction = step.get('prob', 0), step.get('direction') or 'horizontal'
            some = max(chance) if isinstance(chance, (tuple, list)) else chance or 0
            if some > 0 and 'horizontal' in (direction if isinstance(direction, (tuple, list)) else (direction,)):
                return True
    return False


def foreign_sizes(cfg: Config, pipeline: Any) -> str | None:
    """What ``tta_pipeline`` of a config resizes to and a test with this pipeline does not, as text.

    None if the sizes of the test are among those, or either knows no fixed sizes.
    """
    views = [size for size in _sizes(cfg.tta_pipeline) if size is not None]
    test = [size for size in _sizes(pipeline) if size is not None]
    if not views or set(test) & set(views):
        return None
    return f'tta_pipeline resizes to {", ".join(map(str, views))}, the test {f"to {test[0]}" if test else "does not"}'


def wrote_pipeline(cfg: Config) -> bool:
    """Whether the config file itself, and not one that it inherits from, has a ``tta_pipeline``."""
    try:
        return re.search(r'^tta_pipeline\b', Path(cfg.filename).read_text(encoding='utf-8'), re.MULTILINE) is not None
    except (OSError, TypeError):
        return True
