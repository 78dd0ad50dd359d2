"""The check that the maps of a detector or segmentor are those that its heads are laid out for."""

from collections.abc import Iterator
from typing import Any

from mmengine.runner import Runner
from torch import nn

from ...models.necks.simple_feature_pyramid import ALL_SCALES
from ...utils.errors import UserError
from .dense_runs import dense_model, is_detector, kept_random_state
from .feature_maps import FeatureMaps, feature_maps

Strides = list[tuple[float, float]]
# What heads call the strides of their priors, or the part that has them.
GENERATORS = ('anchor_generator', 'prior_generator', 'square_anchor_generator')
STRIDES = ('strides', 'point_strides')


def check_maps(runner: Runner) -> None:
    """Compare the maps of a detector or segmentor with what each of its heads expects.

    For heads with priors (anchors or points) and for RoI extractors these are the number of maps and their strides,
    for query heads and pixel decoders the number, for heads of mmseg the maps of ``in_index`` and their channels.

    Args:
        runner (Runner): A Runner with its model built.

    Raises:
        UserError: If a map is missing or has another stride or width; the line names the key of the head in the config.
    """
    model = dense_model(runner)
    if model is None:
        return
    # Of a teacher and its student, which are alike, the student learns.
    cfg, key = runner.cfg.get('model'), 'model'
    student = getattr(model, 'student', None)
    if isinstance(student, nn.Module):
        model, cfg, key = student, (cfg or {}).get('detector'), 'model.detector'
    with kept_random_state():
        maps = feature_maps(model, _fixed_side(model))
    if maps is None:
        return
    if is_detector(model):
        _check_detector(model, maps, cfg, key)
    else:
        _check_segmentor(model, maps)


def _fixed_side(model: nn.Module) -> int | None:
    """The one side of pictures that a detector is made for, as SSD is."""
    sides = (getattr(generator, 'input_size', None) for _, _, generator in _generators(model))
    return next((side if isinstance(side, int) else side[0] for side in sides if side), None)


def _generators(model: nn.Module) -> Iterator[tuple[str, nn.Module, Any]]:
    """Each generator of priors, with the name of its head and the head."""
    for name, module in model.named_modules():
        # The pixel decoder of Mask2Former divides by its strides again: any are right. The mask head of CondInst has
        # the points of the one map that it makes.
        if hasattr(module, 'num_encoder_levels') or hasattr(module, 'mask_feature_head'):
            continue
        for value in vars(module).values():
            if hasattr(value, 'strides') and hasattr(value, 'num_levels') and not isinstance(value, nn.Module):
                yield name, module, value


def _pairs(strides: Any) -> Strides:
    """Strides as (rows, columns); generators have them as (x, y)."""
    return [(float(s), float(s)) if isinstance(s, int | float) else (float(s[1]), float(s[0])) for s in strides]


def _shown(strides: Strides) -> list[Any]:
    """Strides as a config has them."""
    pairs = [tuple(int(s) if s == int(s) else round(s, 2) for s in pair) for pair in strides]
    return [pair[0] if pair[0] == pair[1] else pair[::-1] for pair in pairs]


def _key(cfg: Any, key: str, name: str, candidates: tuple[str, ...]) -> str:
    """The key of the strides of a module in the config."""
    for part in filter(None, name.split('.')):
        if isinstance(cfg, list | tuple) and part.isdigit() and int(part) < len(cfg):
            cfg, key = cfg[int(part)], f'{key}.{part}'
        elif isinstance(cfg, dict) and not part.isdigit():
            # Cascades make several modules of one dict.
            cfg, key = cfg.get(part), f'{key}.{part}'
    if isinstance(cfg, dict):
        for candidate in candidates:
            if candidate in cfg:
                inner = cfg[candidate]
                return f'{key}.{candidate}.strides' if isinstance(inner, dict) else f'{key}.{candidate}'
    return f'{key}.{candidates[-1]}'


def _check_detector(model: nn.Module, maps: FeatureMaps, cfg: Any, root: str) -> None:
    for name, head, generator in _generators(model):
        strides = _pairs(generator.strides)
        if len(strides) != len(maps.sides) or not maps.fit(strides):
            raise _misfit(_key(cfg, root, name, (*GENERATORS, *STRIDES[::-1])), strides, maps, head)
        _check_width(f'{root}.{name}', head, maps)
    for name, module in model.named_modules():
        key = f'{root}.{name}'
        if hasattr(module, 'resize_feats') and hasattr(module, 'strides'):
            # SOLO halves the first map, and brings the last to the size of the one before.
            strides = _pairs(module.strides)
            wanted = [(strides[0][0] / 2, strides[0][1] / 2), *strides[1:-1]]
            if len(strides) != len(maps.sides) or not maps.fit(wanted):
                wanted.append((wanted[-1][0] * 2, wanted[-1][1] * 2))
                raise _misfit(f'{key}.strides={_shown(strides)}, for maps', wanted, maps, module)
        elif hasattr(module, 'mask_stride') and hasattr(module, 'start_level'):
            if maps.strides[module.start_level : module.start_level + 1] != [module.mask_stride]:
                raise UserError(
                    f'{key}.mask_stride={module.mask_stride}, but it is for map {module.start_level} of those of the '
                    f'backbone and the neck, which have strides {maps.strides}: set it to the stride of that map'
                )
        elif hasattr(module, 'featmap_strides') and 'semantic' not in name:
            # Of more maps the first are taken. Those of a semantic head are its own.
            strides = _pairs(module.featmap_strides)
            if len(strides) > len(maps.sides) or not maps.fit(strides):
                raise _misfit(_key(cfg, root, name, ('featmap_strides',)), strides, maps, module)
    _check_number(model, maps, root)


def _misfit(key: str, strides: Strides, maps: FeatureMaps, head: nn.Module) -> UserError:
    wanted = _shown(strides)
    shown = f'{key}={wanted}' if '=' not in key else f'{key} of strides {wanted}'
    return UserError(
        f'{shown}, but the maps of the backbone and the neck have strides {maps.strides}: priors and features would '
        f'not be at the same places; set {_pyramid(strides, maps, head) or f"the strides to {maps.strides}"}'
    )


def _pyramid(strides: Strides, maps: FeatureMaps, head: nn.Module) -> str | None:
    """The pyramid that has these strides on a plain backbone, as a setting; None if there is none."""
    if not maps.patch or any(pair[0] != pair[1] for pair in strides):
        return None
    scales = [maps.patch / pair[0] for pair in strides]
    if not set(scales) <= set(ALL_SCALES) or maps.width % max(1, int(max(scales))):
        return None
    return _setting(scales, maps, head)


def _setting(scales: list[float], maps: FeatureMaps, head: nn.Module | None) -> str:
    channels = getattr(head, 'in_channels', None)
    channels = channels if isinstance(channels, int) else maps.channels[0]
    shown = ', '.join(f'{scale:g}' for scale in scales) + (',' if len(scales) == 1 else '')
    width = '' if channels == 256 else f', out_channels={channels}'
    return (
        f"model.neck=dict(_delete_=True, type='SimpleFeaturePyramid', in_channels={maps.width}{width}, "
        f'scales=({shown}))'
    )


def _check_width(key: str, head: nn.Module, maps: FeatureMaps) -> None:
    """The channels of a head with priors."""
    wanted = getattr(head, 'in_channels', None)
    if isinstance(wanted, int):
        wanted = [wanted] * len(maps.channels)
    if isinstance(wanted, list | tuple) and list(wanted) != list(maps.channels):
        raise UserError(
            f'{key}.in_channels={head.in_channels!r}, but the maps of the backbone and the neck have '
            f'{list(maps.channels)} channels: set in_channels to these, or out_channels of the neck'
        )


def _check_number(model: nn.Module, maps: FeatureMaps, root: str) -> None:
    """How many maps queries and pixel decoders take."""
    embedding = getattr(model, 'level_embed', None)
    if embedding is not None and len(embedding) != len(maps.sides):
        wanted = len(embedding)
        cure = _setting(list(ALL_SCALES[1 : 1 + wanted]), maps, None) if maps.patch and wanted <= 5 else None
        raise UserError(
            f'{root}.num_feature_levels={wanted}, but the backbone and the neck give {len(maps.sides)} maps of strides '
            f'{maps.strides}: set {cure or f"num_outs={wanted} of the neck"}'
        )
    for name, module in model.named_modules():
        _check_decoder(f'{root}.{name}', module, maps)


def _check_segmentor(model: nn.Module, maps: FeatureMaps) -> None:
    for name, head in model.named_modules():
        top = name.split('.')
        if top[0] not in ('decode_head', 'auxiliary_head') or not all(part.isdigit() for part in top[1:]):
            continue
        if isinstance(head, nn.ModuleList):
            continue
        key = f'model.{name}'
        index, channels = getattr(head, 'in_index', None), getattr(head, 'in_channels', None)
        if index is None:
            _check_decoder(key, head, maps)
            continue
        many = isinstance(index, list | tuple)
        wrong = [i for i in (index if many else [index]) if not -len(maps.sides) <= i < len(maps.sides)]
        if wrong:
            raise UserError(
                f'{key}.in_index={index!r}, but the backbone and the neck give {len(maps.sides)} maps of strides '
                f'{maps.strides}: name those from 0 to {len(maps.sides) - 1}'
            )
        given: Any = [maps.channels[i] for i in index] if many else maps.channels[index]
        wanted = sum(given) if many and isinstance(channels, int) else given
        if channels is not None and (list(channels) if isinstance(channels, list | tuple) else channels) != wanted:
            raise UserError(
                f'{key}.in_channels={channels!r}, but the maps of in_index={index!r} have {given} channels: set '
                f'in_channels={given}, or out_channels of the neck'
            )


def _check_decoder(key: str, head: nn.Module, maps: FeatureMaps) -> None:
    """A head that takes as many maps as the pixel decoder in it, the first of more."""
    wanted = getattr(getattr(head, 'pixel_decoder', None), 'num_input_levels', None)
    if isinstance(wanted, int) and len(maps.sides) < wanted:
        raise UserError(
            f'{key}.in_channels has {wanted} maps, but the backbone and the neck give {len(maps.sides)}, of strides '
            f'{maps.strides}: give the neck {wanted} levels'
        )
