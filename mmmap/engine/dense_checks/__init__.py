"""Checks of a detector or segmentor, its configuration and its data, before the first iteration.

Each check takes a Runner whose loops are built, and raises :class:`~mmmap.utils.errors.UserError` with one line that
names the key of the config and the right value. A check changes nothing: no random state, no order of the data, not the
model. It does nothing for other models.
"""

from collections.abc import Callable

from mmengine.runner import Runner

from .categories import check_categories
from .classes import check_classes
from .maps import check_maps
from .masks import check_masks
from .objects import check_objects
from .sets import check_sets
from .sizes import check_sizes

#: All checks, in their order: the first fault is reported.
CHECKS: tuple[Callable[[Runner], None], ...] = (
    check_sets,
    check_categories,
    check_classes,
    check_maps,
    check_sizes,
    check_masks,
    check_objects,
)
