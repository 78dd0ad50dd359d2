"""Gives the model of a config the backbone, a neck, and heads that take its maps."""

from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from torch import Tensor

from mmmap.registry import MODELS
from mmmap.utils.errors import UserError

from .backbone_choice import Backbone
from .crops import crop_sizes
from .probe import Level, Observed
from .rules import CHANNELS, fit_inputs, is_pyramid, makes_last_by_pooling, pyramid
from .settings import pad_detection, pad_segmentation, round_up

# Parts of a model that are no heads.
_NOT_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg', 'type')


@dataclass(frozen=True)
class Maps:
    """The maps between two parts of a model, before and after the change.

    Attributes:
        old (list[int]): Channels of each map before.
        kept (list[int]): Which of them there are from now on; what no loss depends on is left out.
        new (list[int]): The channels of these from now on.
    """

    old: list[int]
    kept: list[int]
    new: list[int]

    def fit(self, part: Any) -> None:
        """Let a part that took the old maps take the new ones, in place."""
        fit_inputs(part, self.old, self.new, self.kept)


def adapt_dense(cfg: Config, scope: str, backbone: Backbone, observed: Observed) -> list[Level] | None:
    """Change the model of a detector or a segmentor, in place.

    Its pyramid is replaced, other necks stay, and get the maps they got, in strides and number.

    Returns:
        list[Level]: The maps that its heads get from now on, None if they are not known.

    Raises:
        UserError: If the heads take something else than maps, or maps that cannot be made.
    """
    model = cfg.model
    neck = model.get('neck')
    necks = list(neck) if isinstance(neck, list | tuple) else [neck] if neck is not None else []
    replaced = bool(necks) and is_pyramid(necks[0])
    levels = _taken(observed.first_neck if replaced else observed.backbone)
    kept = [i for i, level in enumerate(levels) if level.used] or list(range(len(levels)))
    strides = [levels[i].stride for i in kept]
    old = [level.channels for level in levels]
    # Heads of detectors have many layers of the width of the maps, and keep it.
    same = (replaced or scope == 'mmdet') and len({old[i] for i in kept}) == 1
    channels = old[kept[0]] if same else CHANNELS
    if scope == 'mmseg' and not necks and set(strides) == {backbone.patch_size}:
        made, channels = [], backbone.width
    else:
        pools = replaced and makes_last_by_pooling(necks[0])
        made = [pyramid(backbone.width, backbone.patch_size, strides, channels, pools)]
    maps = Maps(old, kept, [channels] * len(kept))
    others = necks[replaced:]
    if others:
        maps.fit(others[0])
        maps = _behind(others, maps.new, strides, observed.neck)
    for key, part in model.items():
        if key not in _NOT_HEADS:
            maps.fit(part)
    made = [*made, *others]
    if made or neck is not None:
        model.neck = made if len(made) > 1 else made[0] if made else None
    # A detector makes all maps from the last one, as ViTDet does.
    taps = -1 if scope == 'mmdet' else backbone.taps(len(kept))
    task: dict[str, Any] = dict(out_type='featmap') | (dict(out_indices=taps) if taps != -1 else {})
    if scope == 'mmseg':
        size = pad_segmentation(model, backbone.patch_size)
        if size is not None:
            square = isinstance(size, int) or size[0] == size[1]
            task = dict(img_size=size if isinstance(size, int) or not square else size[0]) | task
    else:
        pad_detection(model.data_preprocessor, int(max(*strides, backbone.patch_size)))
    model.backbone = backbone.config(**task)
    if not others:
        return [levels[i] for i in kept]
    return None if isinstance(observed.neck, str) else observed.neck


def _taken(levels: list[Level] | str) -> list[Level]:
    """The maps that a part takes."""
    if isinstance(levels, str):
        raise UserError(f'its heads take {levels}, and a MAPHybrid gives maps alone')
    if any(level.stride == 0 for level in levels):
        raise UserError('its heads take vectors, not maps')
    return levels


def _behind(necks: list, channels: list[int], strides: list[float], before: list[Level] | str) -> Maps:
    """The maps behind necks that stay, which take maps of these channels and strides from now on."""
    side = 8 * max(strides)
    outs: Any = [
        torch.zeros(2, c, int(side / s), int(side / s), device=get_device())
        for c, s in zip(channels, strides, strict=True)
    ]
    for neck in necks:
        try:
            with torch.no_grad():
                outs = MODELS.build(ConfigDict(neck).to_dict()).to(get_device())(tuple(outs))
        except Exception as error:
            raise UserError(
                f'its neck {neck["type"]} does not take such maps: {type(error).__name__}: {error}'
            ) from error
        outs = [outs] if isinstance(outs, Tensor) else outs
    old = [] if isinstance(before, str) else [level.channels for level in before]
    if len(outs) != len(old):
        return Maps([], [], [])
    return Maps(old, list(range(len(old))), [out.shape[1] for out in outs])


def adapt_classifier(cfg: Config, scope: str, backbone: Backbone, observed: Observed) -> None:
    """Change the model of a classifier, in place.

    Raises:
        UserError: If its head takes something else than one vector or map.
    """
    model = cfg.model
    taken = observed.neck
    if model.get('head') is None:
        raise UserError('it has no head')
    if isinstance(taken, str) or len(taken) != 1:
        what = taken if isinstance(taken, str) else f'the features of {len(taken)} stages'
        raise UserError(f'its head takes {what}, and a MAPHybrid gives one map, or the mean of it')
    fit_inputs(model.head, [taken[0].channels], [backbone.width], [0])
    if model.get('neck') is not None:
        model.neck = None
    patch = backbone.patch_size
    sizes = list(crop_sizes(cfg.get('train_dataloader')))[-1:]
    task: dict[str, Any] = dict(img_size=round_up(sizes[0], patch)) if sizes else {}
    task['out_type'] = 'featmap' if taken[0].stride else 'avg_featmap'
    tested = crop_sizes([cfg.get('val_dataloader'), cfg.get('test_dataloader')])
    if any(size % patch for size in (*sizes, *tested)):
        inside = model.get('data_preprocessor')
        pad_detection(cfg.data_preprocessor if inside is None else inside, patch)
    model.backbone = backbone.config(**task)
