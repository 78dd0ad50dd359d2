"""Writes a child config that gives an installed config, or one's own, a hybrid backbone."""

import logging
import os
import warnings
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel

from mmmap.engine.error_report import explain
from mmmap.utils.errors import UserError

from .backbone_choice import Backbone
from .base_config import BaseConfig
from .config_text import config_text, difference, without_scope
from .parts import adapt_classifier, adapt_dense
from .probe import Observed, build_initialised, observe
from .rules import why_refused
from .settings import set_optimizer, set_pixels
from .trial import try_config

#: Sides in pixels of the pictures on which models are tried: at least one cell of the coarsest map. Some need more.
SIZES = dict(mmdet=(128, 256, 512), mmseg=(128, 256), mmpretrain=(64, 224, 384))


def adapt_config(base: BaseConfig, backbone: Backbone, out: Path, note: str) -> str:
    """Write a child config in which the model of a base has another backbone.

    The base is built and run once, to see which maps its heads get. The child is built from its file, trained for two
    iterations and run on a picture before the file gets its name.

    Args:
        base (BaseConfig): The base.
        backbone (Backbone): The backbone.
        out (Path): The file. It is replaced if it exists.
        note (str): The comment at the head of the file.

    Returns:
        str: The text of the file.

    Raises:
        UserError: If the base cannot have the backbone. Nothing is written then.
    """
    scope = base.cfg.get('default_scope', 'mmpretrain')
    reason = why_refused(base.cfg.model)
    if reason is not None:
        raise UserError(f'{base.name} cannot have the backbone: {reason}')
    cfg = Config(deepcopy(base.cfg._cfg_dict))
    with _explained(f'{base.name} does not run as it is, before anything is changed'):
        model = build_initialised(base.cfg)
        size, observed = _observe_smallest(model, scope)
    try:
        adapt = adapt_classifier if scope == 'mmpretrain' else adapt_dense
        levels = adapt(cfg, scope, backbone, observed)
    except UserError as error:
        raise UserError(f'{base.name} cannot have the backbone: {error}') from error
    _change_the_rest(cfg, scope, backbone, model)
    del model
    old, new = (without_scope(part._cfg_dict.to_dict(), scope) for part in (base.cfg, cfg))
    text = config_text(base.reference(out.parent), difference(old, new), note)
    out.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, as the base may be relative to it.
    draft = out.with_name(f'.{out.stem}_{os.getpid()}.py')
    try:
        draft.write_text(text, encoding='utf-8')
        child = Config.fromfile(draft)
        if without_scope(child._cfg_dict.to_dict(), scope) != new:
            raise RuntimeError(f'{draft} does not read as the config that was meant')
        with _explained(f'{base.name} cannot have the backbone'):
            try_config(child, scope, size, levels)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return text


def _observe_smallest(model: BaseModel, scope: str) -> tuple[int, Observed]:
    """Observe a model on the smallest pictures that it takes; returns their side as well."""
    for size in SIZES[scope][:-1]:
        # Pictures that are too small are told by many kinds of errors.
        with suppress(Exception):
            return size, observe(model, scope, size)
    return SIZES[scope][-1], observe(model, scope, SIZES[scope][-1])


def _change_the_rest(cfg: Config, scope: str, backbone: Backbone, model: Any) -> None:
    """Change what is around the backbone, neck and heads, in place."""
    imports = list((cfg.get('custom_imports') or {}).get('imports') or [])
    cfg.custom_imports = dict(imports=[*imports, *['mmmap'][: 'mmmap' not in imports]], allow_failed_imports=False)
    for key in ('pretrained', 'init_cfg'):
        # They would set the weights of the backbone as well.
        if cfg.model.get(key) is not None:
            cfg.model[key] = None
    if cfg.get('load_from') is not None:
        cfg.load_from = None
    inside = cfg.model.get('data_preprocessor')
    if inside is None and cfg.get('data_preprocessor') is None:
        raise UserError('the config has no data_preprocessor')
    set_pixels(cfg.data_preprocessor if inside is None else inside, backbone, scope)
    set_optimizer(cfg, scope, backbone, model)


class _explained:
    """A silent trial. Any error in it becomes a ``UserError`` of one line, behind some words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __enter__(self) -> None:
        self.warnings = warnings.catch_warnings()
        self.warnings.__enter__()
        warnings.simplefilter('ignore')
        self.logger = MMLogger.get_current_instance()
        self.level = self.logger.level
        self.logger.setLevel(logging.ERROR)
        self.random_state = torch.get_rng_state()

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        self.warnings.__exit__(None, None, None)
        self.logger.setLevel(self.level)
        torch.set_rng_state(self.random_state)
        if isinstance(error, Exception):
            raise UserError(f'{self.words}: {explain(error)}') from error
