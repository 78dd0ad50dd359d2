"""What each kind of neck and head expects of a backbone. The kinds that cannot have it are refused with the reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmpretrain.models.selfsup import BaseSelfSupervisor

from mmmap.engine.config_parts import find_class, type_name, walk
from mmmap.models.necks.simple_feature_pyramid import ALL_SCALES
from mmmap.utils.errors import UserError

#: Necks that only make a pyramid of maps of one width. ``SimpleFeaturePyramid`` replaces them; all others stay, and get
#: its maps.
PYRAMIDS = frozenset({'ChannelMapper', 'FPN', 'Feature2Pyramid', 'HRFPN', 'MultiLevelNeck', 'SimpleFeaturePyramid'})
#: Channels of the pyramid where the heads can take any number.
CHANNELS = 256


@dataclass(frozen=True)
class Refused:
    """A kind of model that cannot have the backbone.

    Attributes:
        holds (Callable): Whether the ``model`` of a config is of this kind.
        reason (str): Why not, and what to take instead if there is something.
    """

    holds: Callable[[dict], bool]
    reason: str


def _has_key(key: str) -> Callable[[dict], bool]:
    return lambda model: any(path and path[-1] == key and value for path, value in walk(model))


def _has_type(*names: str) -> Callable[[dict], bool]:
    return lambda model: any(
        isinstance(part, dict) and isinstance(part.get('type'), str | type) and type_name(part['type']) in names
        for _, part in walk(model)
    )


def _is_a(model: dict, kind: type) -> bool:
    found = find_class(model, ('model',))
    return isinstance(found, type) and issubclass(found, kind)


REFUSED = (
    Refused(
        lambda model: 'backbone' not in model and any(isinstance(v, dict) and 'backbone' in v for v in model.values()),
        'it wraps another model that has the backbone: adapt the config of that model, and name the result in this one',
    ),
    Refused(lambda model: 'backbone' not in model, 'it has no backbone that could be replaced'),
    Refused(
        lambda model: _is_a(model, BaseSelfSupervisor),
        'it is pretrained together with its backbone: configs/map and configs/baselines pretrain this one',
    ),
    Refused(
        _has_key('shared_head'),
        'its RoI head is the last stage of the ResNet (roi_head.shared_head), which no other backbone has: take the '
        'config with FPN',
    ),
    Refused(
        _has_key('language_model'), 'its neck and heads are trained for the pictures and the texts of one backbone'
    ),
    Refused(
        _has_key('teacher_config'),
        'it distils a teacher, whose maps are compared with those of the backbone: adapt the config without teacher',
    ),
)


def why_refused(model: dict) -> str | None:
    """Why a model cannot have the backbone, None if it may."""
    return next((rule.reason for rule in REFUSED if rule.holds(model)), None)


def is_pyramid(neck: Any) -> bool:
    """Whether a neck is one that ``SimpleFeaturePyramid`` replaces."""
    return isinstance(neck, dict) and type_name(neck['type']) in PYRAMIDS


def makes_last_by_pooling(neck: dict) -> bool:
    """Whether an FPN makes one map more than it gets, by taking every second cell of the last."""
    inputs = len(neck.get('in_channels', ())) - neck.get('start_level', 0)
    return not neck.get('add_extra_convs', False) and neck.get('num_outs', inputs) == inputs + 1


def pyramid(width: int, patch_size: int, strides: Sequence[float], channels: int, pools: bool) -> dict[str, Any]:
    """The config of a ``SimpleFeaturePyramid`` that makes maps of these strides in pixels.

    Args:
        width (int): Channels of the backbone.
        patch_size (int): Side of its patches in pixels.
        strides (Sequence[float]): One a map.
        channels (int): Channels of the maps.
        pools (bool): The last map takes every second cell of the one before.

    Raises:
        UserError: If maps of these strides cannot be made.
    """
    scales = [patch_size / stride for stride in strides]
    pools = len(scales) > 1 and scales[-1] == scales[-2] / 2 and (pools or scales[-1] not in ALL_SCALES)
    own = scales[:-1] if pools else scales
    if not set(own) <= set(ALL_SCALES):
        shown = ', '.join(f'{patch_size / scale:g}' for scale in sorted(ALL_SCALES, reverse=True))
        wanted = ', '.join(f'{stride:g}' for stride in strides)
        raise UserError(
            f'its heads take maps of strides {wanted}; from patches of {patch_size} pixels there are {shown}'
        )
    short = tuple(int(scale) if scale >= 1 else scale for scale in own)
    return dict(type='SimpleFeaturePyramid', in_channels=width, out_channels=channels, scales=short) | (
        dict(with_max_pool=True) if pools else {}
    )


def fit_inputs(part: Any, old: Sequence[int], new: Sequence[int], kept: Sequence[int], outer: bool = True) -> None:
    """Set the number and the channels of the maps that heads or a neck take, in place.

    A part takes maps if it has ``in_index``, if its ``in_channels`` is the list of their channels, or if it is an
    outer one. Heads inside such a part take what that part makes, and are left as they are.

    Args:
        part (Any): The config of one or more heads or necks.
        old (Sequence[int]): Channels of all maps that the old backbone or neck made.
        new (Sequence[int]): Channels of those that are made now, one for each of ``kept``.
        kept (Sequence[int]): Which of the old maps they stand for.
        outer (bool): Whether the part itself is a head or neck. Defaults to True.
    """
    if isinstance(part, list | tuple):
        for item in part:
            fit_inputs(item, old, new, kept, outer)
    if not isinstance(part, dict):
        return
    place = {index: i for i, index in enumerate(kept)}
    index = part.get('in_index')
    given = part.get('in_channels')
    if isinstance(given, list | tuple):
        at = [i % len(old) for i in index] if isinstance(index, list | tuple) else list(range(len(old)))
        # Some necks read the maps from the last to the first.
        for order in (at, at[::-1]):
            if list(given) == [old[i] for i in order] and any(i in place for i in order):
                taken = [i for i in order if i in place]
                part['in_channels'] = type(given)(new[place[i]] for i in taken)
                if isinstance(index, list | tuple):
                    part['in_index'] = type(index)(place[i] for i in taken)
                _drop_levels(part, [i for i, level in enumerate(order) if level in place], len(order))
                break
    elif isinstance(given, int) and (outer or index is not None):
        at_one = (index if isinstance(index, int) else -1) % len(old)
        if given == old[at_one] and at_one in place:
            part['in_channels'] = new[place[at_one]]
            if isinstance(index, int) and index >= 0:
                part['in_index'] = place[at_one]
    # A second input: the finest map.
    if part.get('c1_in_channels') == old[0] and 0 in place:
        part['c1_in_channels'] = new[place[0]]
    for key, value in part.items():
        if key not in ('loss_decode', 'norm_cfg'):
            fit_inputs(value, old, new, kept, outer=False)


def _drop_levels(part: dict, left: Sequence[int], number: int) -> None:
    """Shorten other lists with an entry for each map, and let the first map that is left be the first."""
    if len(left) == number:
        return
    if isinstance(part.get('feature_strides'), list | tuple) and len(part['feature_strides']) == number:
        part['feature_strides'] = [part['feature_strides'][i] for i in left]
    if isinstance(part.get('start_level'), int):
        part['start_level'] = max(0, part['start_level'] - left[0])
