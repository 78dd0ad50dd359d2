"""Gives the model of a config the backbone, a neck, and heads that take its maps."""

from typing import Any

import torch
from mmengine.config import Config, ConfigDict

from mmmap.registry import MODELS
from mmmap.utils.errors import UserError

from .backbone_choice import Backbone
from .probe import Level, Observed
from .rules import CHANNELS, fit_inputs, is_pyramid, pyramid
from .settings import crop_sizes, pad_detection, pad_segmentation, round_up

# Parts of a model that are no heads.
_NOT_HEADS = ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg', 'type')


def adapt_dense(cfg: Config, scope: str, backbone: Backbone, observed: Observed) -> list[Level] | None:
    """Change the model of a detector or a segmentor, in place.

    Returns:
        list[Level]: The maps that its heads get from now on: those they got before.

    Raises:
        UserError: If the heads take something else than maps, or maps that cannot be made.
    """
    model = cfg.model
    neck = model.get('neck')
    necks = list(neck) if isinstance(neck, list | tuple) else [neck] if neck is not None else []
    replaced = bool(necks) and is_pyramid(necks[0])
    alone = replaced and len(necks) == 1
    kept_necks = necks[1:] if replaced else necks
    if replaced and not alone:
        wanted = _levels_between(necks, observed)
    else:
        wanted = observed.neck if replaced else observed.backbone
    if isinstance(wanted, str):
        raise UserError(f'its heads take {wanted}, and a MAPHybrid makes one map for each of its taps')
    if any(level.stride == 0 for level in wanted):
        raise UserError('its heads take vectors, not maps')
    kept = [i for i, level in enumerate(wanted) if level.used] or list(range(len(wanted)))
    levels = [wanted[i] for i in kept]
    strides = [level.stride for level in levels]
    old = [level.channels for level in wanted]
    plain = not necks and set(strides) == {backbone.patch_size}
    uniform = old[kept[0]] if len({old[i] for i in kept}) == 1 and (replaced or scope == 'mmdet') else CHANNELS
    channels = backbone.width if plain else uniform
    pools = alone and _pools_last(necks[0])
    made = [] if plain else [pyramid(backbone.width, backbone.patch_size, strides, channels, pools)]
    if made and isinstance(made[0], str):
        raise UserError(made[0])
    taps = backbone.taps(len(levels)) if scope == 'mmseg' else -1
    task: dict[str, Any] = dict(out_type='featmap')
    if taps != -1:
        task['out_indices'] = taps
    if plain and taps == -1 and len(levels) > 1:
        task['out_indices'] = backbone.taps(len(levels))
    new = [channels] * len(kept)
    if kept_necks:
        kept_necks = [ConfigDict(part) for part in kept_necks]
        fit_inputs(kept_necks[0], old, new, kept)
        heads_old, heads_new, heads_kept = _behind(kept_necks, new, strides, observed)
    else:
        heads_old, heads_new, heads_kept = old, new, kept
    for key, part in model.items():
        if key not in _NOT_HEADS and heads_new is not None:
            fit_inputs(part, heads_old, heads_new, heads_kept)
    together = [*made, *kept_necks]
    if together or 'neck' in model:
        model.neck = (together[0] if len(together) == 1 else together) if together else None
    if scope == 'mmseg':
        size = pad_segmentation(model, backbone.patch_size)
        if size is not None:
            task = dict(img_size=size[0] if isinstance(size, list | tuple) and size[0] == size[1] else size) | task
    else:
        pad_detection(model.data_preprocessor, int(max(*strides, backbone.patch_size)))
    model.backbone = backbone.config(**task)
    heads_strides = observed.neck if necks else wanted
    return levels if not kept_necks else (heads_strides if not isinstance(heads_strides, str) else None)


def _pools_last(neck: dict) -> bool:
    """Whether an FPN makes one map more than it gets, by taking every second cell."""
    inputs = len(neck.get('in_channels', ())) - neck.get('start_level', 0)
    return not neck.get('add_extra_convs', False) and neck.get('num_outs', inputs) == inputs + 1


def _levels_between(necks: list, observed: Observed) -> list[Level] | str:
    """The maps that the first of several necks makes: those of the last, if the others keep their number."""
    if isinstance(observed.neck, str) or isinstance(observed.backbone, str):
        return observed.neck
    channels = necks[0].get('out_channels', observed.neck[0].channels)
    return [Level(channels, level.stride) for level in observed.neck]


def _behind(necks: list, channels: list[int], strides: list[float], observed: Observed) -> tuple:
    """Channels of the maps behind necks that stay: before, now, and which of them there are."""
    if isinstance(observed.neck, str):
        return [], None, []
    side = int(max(strides)) * 2
    maps = tuple(torch.zeros(2, c, int(side // s), int(side // s)) for c, s in zip(channels, strides, strict=True))
    try:
        with torch.no_grad():
            outs = MODELS.build(ConfigDict(type='mmengine.Sequential', modules=[])) if False else maps
            for neck in necks:
                outs = MODELS.build(neck.to_dict()).train()(outs)
    except Exception as error:
        raise UserError(f'its neck {necks[0]["type"]} does not fit: {type(error).__name__}: {error}') from error
    outs = outs if isinstance(outs, list | tuple) else [outs]
    old = [level.channels for level in observed.neck]
    new = [out.shape[1] for out in outs if isinstance(out, torch.Tensor)]
    if len(new) != len(old):
        return [], None, []
    return old, new, list(range(len(old)))


def adapt_classifier(cfg: Config, scope: str, backbone: Backbone, observed: Observed) -> None:
    """Change the model of a classifier, in place.

    Raises:
        UserError: If its head takes something else than one vector or map.
    """
    model = cfg.model
    if isinstance(observed.neck, str) or 'head' not in model:
        what = observed.neck if isinstance(observed.neck, str) else 'no head'
        raise UserError(f'its head takes {what}, and a MAPHybrid gives a map, or its mean')
    if len(observed.neck) != 1:
        raise UserError(f'its head takes the features of {len(observed.neck)} stages; a MAPHybrid has one')
    level = observed.neck[0]
    fit_inputs(model.head, [level.channels], [backbone.width], [0])
    if model.get('neck') is not None:
        model.neck = None
    sizes = list(crop_sizes(cfg.get('train_dataloader')))
    patch = backbone.patch_size
    task: dict[str, Any] = dict(img_size=round_up(sizes[-1], patch)) if sizes else {}
    task['out_type'] = 'featmap' if level.stride else 'avg_featmap'
    tested = [*sizes[-1:], *crop_sizes([cfg.get('val_dataloader'), cfg.get('test_dataloader')])]
    if any(size % patch for size in tested):
        inside = model.get('data_preprocessor')
        pad_detection(cfg.data_preprocessor if inside is None else inside, patch)
    model.backbone = backbone.config(**task)
