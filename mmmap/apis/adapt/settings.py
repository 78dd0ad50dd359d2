"""The settings of a config around the model that follow from the backbone: sizes, pixels, optimizer, schedule."""

from math import lcm
from typing import Any

from mmengine.config import Config
from torch import nn

from mmmap.engine.config_parts import type_name

from .backbone_choice import Backbone

#: The learning rate and the weight decay of AdamW in place of another optimizer, as in the configs of each task.
ADAMW = dict(
    mmdet=dict(lr=1e-4, weight_decay=0.1),
    mmseg=dict(lr=1e-4, weight_decay=0.05),
    mmpretrain=dict(lr=5e-4, weight_decay=0.05),
)
# For each of ViT-B's 12 blocks.
_DECAY = dict(mmdet=0.7, mmseg=0.65, mmpretrain=0.65)
_MULTIPLIERS = {'lr_mult', 'decay_mult'}


def round_up(size: Any, divisor: int) -> Any:
    """A size in pixels, or each of several, as the next multiple of a number."""
    if isinstance(size, list | tuple):
        return type(size)(round_up(side, divisor) for side in size)
    return -(-size // divisor) * divisor


def set_pixels(preprocessor: dict, backbone: Backbone, scope: str) -> None:
    """Give the pixels the order, mean and deviation that the weights of the backbone were trained with, in place."""
    preprocessor.update({key: list(value) for key, value in backbone.normalization.items()})
    if scope == 'mmpretrain':
        preprocessor['to_rgb'] = True
        return
    preprocessor['bgr_to_rgb'] = True
    if preprocessor.get('rgb_to_bgr'):
        preprocessor['rgb_to_bgr'] = False


def pad_detection(preprocessor: dict, divisor: int) -> None:
    """Let all batches be padded to whole patches and whole cells of the coarsest map, in place."""
    preprocessor['pad_size_divisor'] = lcm(preprocessor.get('pad_size_divisor', 1), divisor)


def pad_segmentation(model: dict, patch_size: int) -> Any:
    """Let the crops of training and the pictures of tests be whole patches, in place; returns the size of the crops."""
    preprocessor = model['data_preprocessor']
    size = preprocessor.get('size')
    if size is not None:
        size = preprocessor['size'] = round_up(size, patch_size)
    elif preprocessor.get('size_divisor') is not None:
        preprocessor['size_divisor'] = lcm(preprocessor['size_divisor'], patch_size)
    test = dict(preprocessor.get('test_cfg') or {})
    if test.get('size') is None:
        test['size_divisor'] = lcm(test.get('size_divisor') or 1, patch_size)
    else:
        test['size'] = round_up(test['size'], patch_size)
    preprocessor['test_cfg'] = test
    windows = model.get('test_cfg') or {}
    if windows.get('mode') == 'slide':
        windows['crop_size'] = round_up(windows['crop_size'], patch_size)
    return size


def set_optimizer(cfg: Config, scope: str, backbone: Backbone, model: nn.Module) -> None:
    """Give a config AdamW with our layer-wise learning rates, in place. Its schedule stays what it was.

    Args:
        cfg (Config): The config.
        scope (str): The package of its task.
        backbone (Backbone): The backbone. Pretrained, its first layers learn at a smaller rate.
        model (nn.Module): The model before the change, which tells what parameters the old options were for.
    """
    wrapper = cfg.optim_wrapper
    old = wrapper.optimizer
    if type_name(old.type) != 'AdamW':
        batch = (cfg.get('auto_scale_lr') or {}).get('base_batch_size', 256) if scope == 'mmpretrain' else 256
        wrapper.optimizer = dict(type='AdamW', **ADAMW[scope])
        if scope == 'mmpretrain':
            # For every 256 pictures of the global batch.
            wrapper.optimizer['lr'] *= batch / 256
    wrapper.constructor = 'LayerDecayOptimWrapperConstructor'
    custom = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    options: dict[str, Any] = {}
    if backbone.pretrained:
        blocks = len(backbone.arch['layout'])
        # Leaves the embedding of any number of blocks the same part of the learning rate.
        options['layer_decay_rate'] = round(_DECAY[scope] ** (13 / (blocks + 1)), 2)
    names = [name for name, _ in model.named_parameters() if 'backbone' not in name.split('.')]
    kept = {
        key: value for key, value in custom.items() if value.keys() <= _MULTIPLIERS and _is_needed(key, value, names)
    }
    if kept:
        options['custom_keys'] = kept
    if options or wrapper.get('paramwise_cfg') is not None:
        wrapper.paramwise_cfg = options or None
    if 'layer_decay_rate' in options or wrapper.optimizer.lr != old.get('lr'):
        _scale_minima(cfg.get('param_scheduler'), old.get('lr'))


def _is_needed(key: str, value: dict, names: list[str]) -> bool:
    # The constructor itself exempts norms from decay.
    is_norm = 'norm' in key and value.get('lr_mult', 1) == 1
    return not is_norm and any(key in name for name in names)


def _scale_minima(schedules: Any, rate: float | None) -> None:
    """Keep the lowest learning rates of schedules the same part of the highest, in place.

    They are absolute: above a smaller learning rate, or that of the first layers, they would raise it.
    """
    for schedule in schedules if isinstance(schedules, list) else [schedules] if schedules else []:
        if not schedule.get('eta_min') or not rate:
            continue
        if type_name(schedule.type) == 'CosineAnnealingLR':
            schedule['eta_min_ratio'] = float(f'{schedule.pop("eta_min") / rate:.3g}')
        else:
            schedule['eta_min'] = 0.0
