"""Writes a child config that gives an installed config, or one's own, a hybrid backbone."""

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.model import BaseModel

from mmmap.registry import MODELS
from mmmap.utils.errors import UserError

from .backbone_choice import Backbone
from .base_config import BaseConfig
from .config_text import config_text, difference, without_scope
from .parts import adapt_classifier, adapt_dense
from .probe import SIZES, build_initialised, observe_smallest
from .rules import why_refused
from .settings import set_optimizer, set_pixels
from .trial import predict_once, trial, try_training

_CANNOT = 'cannot have the backbone'


def adapt_config(base: BaseConfig, backbone: Backbone, out: Path, note: str) -> str | None:
    """Write a child config in which the model of a base has another backbone.

    The base is built and run once, to see which maps its heads get. The child is built from its file, trained for two
    iterations and run on a picture before the file gets its name.

    Args:
        base (BaseConfig): The base.
        backbone (Backbone): The backbone.
        out (Path): The file. It is replaced if it exists.
        note (str): The comment at the head of the file.

    Returns:
        str: What could not be tried for a fault of the base, None if all was.

    Raises:
        UserError: If the base cannot have the backbone. Nothing is written then.
    """
    scope = base.cfg.get('default_scope', 'mmpretrain')
    reason = why_refused(base.cfg.model)
    if reason is not None:
        raise UserError(f'{base.name} {_CANNOT}: {reason}')
    preprocessor = base.cfg.model.get('data_preprocessor') or base.cfg.get('data_preprocessor') or {}
    found, needed = len(preprocessor.get('mean') or '123'), backbone.options.get('in_channels', 3)
    if found != needed:
        number = f'{found} channel{"s"[: found != 1]}'
        raise UserError(f'{base.name} {_CANNOT}: its pictures have {number}, and the backbone takes {needed}')
    cfg = Config(deepcopy(base.cfg._cfg_dict))
    with trial('the backbone cannot be built'):
        MODELS.build(backbone.config(out_type='featmap')).init_weights()
    with trial(f'{base.name} does not run as it is, before anything is changed'):
        model = build_initialised(_with_small_backbone(base.cfg, SIZES[scope][0]))
        size, observed = observe_smallest(model, base.cfg, scope)
    with trial(f'{base.name} {_CANNOT}'):
        adapt = adapt_classifier if scope == 'mmpretrain' else adapt_dense
        levels = adapt(cfg, scope, backbone, observed)
    _change_the_rest(cfg, scope, backbone, model)
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
        with trial(f'{base.name} {_CANNOT}, with it the model does not train'):
            adapted = try_training(child, scope, size, levels)
        doubt = _try_prediction(base, scope, size, adapted, model)
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return doubt


def _with_small_backbone(cfg: Config, size: int) -> Config:
    """A config whose old backbone, if it takes one size alone, takes small pictures."""
    cfg = Config(deepcopy(cfg._cfg_dict))
    if isinstance(cfg.model.backbone.get('img_size'), int | list | tuple):
        cfg.model.backbone.img_size = size
    return cfg


def _try_prediction(base: BaseConfig, scope: str, size: int, adapted: BaseModel, model: BaseModel) -> str | None:
    """Predict with the new model. If neither it nor the old one can, the fault is not that of the backbone."""
    try:
        with trial(f'{base.name} {_CANNOT}, with it the model does not predict'):
            predict_once(adapted, scope, size)
    except UserError as error:
        try:
            with trial('the prediction could not be tried, as that of the config itself fails'):
                predict_once(model, scope, size)
        except UserError as own:
            return str(own)
        raise error
    return None


def _change_the_rest(cfg: Config, scope: str, backbone: Backbone, model: Any) -> None:
    """Change what is around the backbone, neck and heads, in place."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    imports = [imports] if isinstance(imports, str) else list(imports)
    cfg.custom_imports = dict(
        imports=imports if 'mmmap' in imports else [*imports, 'mmmap'], allow_failed_imports=False
    )
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
