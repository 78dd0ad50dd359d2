"""Layer-wise learning rates, and the rule that exempts parameters from weight decay."""

import logging
import re
from collections import defaultdict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from mmcv.cnn import is_norm
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FlatParameter, FullyShardedDataParallel

from mmmap.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmmap.utils.wrapped_names import without_wrappers

OPTIONS = ('layer_decay_rate', 'custom_keys')
MULTIPLIERS = ('lr_mult', 'decay_mult')

# Names of biases, positions and learned tokens in models of other libraries. Modules of mmmap list theirs.
_NO_DECAY = re.compile(r'(^|\.)(\w*bias|\w*pos_embed|(register|cls)_tokens?|mask_token)$')


def _with_whole_parameters(model: nn.Module) -> AbstractContextManager:
    """Give parameters sharded by FSDP their full shapes inside the context. The objects stay the same."""
    if not any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        return nullcontext()
    if any(isinstance(param, FlatParameter) for param in model.parameters()):
        raise ValueError(
            'FSDP has flattened all parameters into one, so that they cannot have settings of their own: '
            'set use_orig_params=True in model_wrapper'
        )
    return FullyShardedDataParallel.summon_full_params(model, writeback=False)


def _undecayed(module: nn.Module) -> list[Tensor]:
    """A module's own parameters without weight decay: all of a norm's, and those named in ``module.undecayed``."""
    named = dict(module.named_parameters(recurse=False))
    return [*named.values()] if is_norm(module) else [named[n] for n in getattr(module, 'undecayed', ()) if n in named]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """Builds an optimizer with layer-wise learning rates, and without weight decay of norms, biases, positions etc.

    It works for classifiers, segmentors, detectors and pretraining algorithms. As in mmpretrain,
    ``model.backbone.get_layer_depth(name, 'backbone.')`` gives the depth d of n of a parameter. Its learning rate is
    ``lr * layer_decay_rate ** (n - 1 - d)``; outside the backbone it is ``lr`` (BEiT, arXiv 2106.08254; MAE, arXiv
    2111.06377).

    ``optimizer.weight_decay`` does not apply to parameters of at most one dimension, norms, biases, position
    embeddings, register, class and mask tokens, and those that a module names in its attribute ``undecayed`` (``A_log``
    and ``D`` of Mamba's mixer).

    ``paramwise_cfg`` may have

    - ``layer_decay_rate`` (float): in (0, 1]. Defaults to 1, the same rate for all.
    - ``custom_keys`` (dict): maps a part of a parameter's name to ``lr_mult``, a further factor of its learning rate,
      and ``decay_mult``, a factor of ``optimizer.weight_decay`` that replaces the rule above. The longest key in a name
      is used.

    Parameters of equal settings form a group with ``lr_scale``, its rate over ``lr``, and ``param_names``. Frozen
    parameters are left out. A shared parameter has the settings of its first name.

    Give ``CosineAnnealingLR`` an ``eta_min_ratio``, not an ``eta_min``, which is one absolute rate for all. It can
    exceed the initial rate of the first layers, whose rate would then rise.

    Args:
        optim_wrapper_cfg (dict): Config of the optimizer wrapper, with ``optimizer``.
        paramwise_cfg (dict, optional): The options above. Defaults to None.

    Raises:
        ValueError: If an option is unknown or out of range, ``optimizer`` has no ``lr``, FSDP wraps the model without
            ``use_orig_params``, or ``layer_decay_rate`` has no effect as all of the backbone has the last depth.
        AttributeError: If the model has no ``backbone``, or that has no ``get_layer_depth``.
    """

    paramwise_cfg: dict

    def _validate_cfg(self) -> None:
        super()._validate_cfg()
        unknown = [key for key in self.paramwise_cfg if key not in OPTIONS]
        if unknown:
            raise ValueError(
                f'paramwise_cfg: unknown {unknown}, {type(self).__name__} has {list(OPTIONS)}; if they come from '
                '_base_, write paramwise_cfg=dict(_delete_=True, ...)'
            )
        # Never empty: mmengine skips add_params then.
        self.paramwise_cfg = {'layer_decay_rate': 1.0, 'custom_keys': {}, **self.paramwise_cfg}
        rate = self.paramwise_cfg['layer_decay_rate']
        if not 0 < rate <= 1:
            raise ValueError(f'paramwise_cfg: layer_decay_rate={rate} must be in (0, 1]')
        for key, settings in self.paramwise_cfg['custom_keys'].items():
            unknown = [name for name in settings if name not in MULTIPLIERS]
            if unknown:
                raise ValueError(f'paramwise_cfg: custom_keys[{key!r}] has unknown {unknown}, not {list(MULTIPLIERS)}')
        if self.base_lr is None:
            raise ValueError(f'optim_wrapper.optimizer has no lr, which {type(self).__name__} scales: set it')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of a model, wrapped (DDP, FSDP, ``torch.compile``) or not."""
        with _with_whole_parameters(model):
            return super().__call__(model)

    def add_params(self, params: list[dict], module: nn.Module) -> None:
        """Append the groups of a model, without DDP, to ``params``."""
        rate, custom_keys = self.paramwise_cfg['layer_decay_rate'], self.paramwise_cfg['custom_keys']
        exempt = {id(p) for m in module.modules() for p in _undecayed(m)}
        # Of keys of equal length the first in the alphabet is used, as in mmengine.
        keys = sorted(sorted(custom_keys), key=len, reverse=True)
        groups: dict[tuple[float, float], dict] = {}
        used, of_depth = set(), defaultdict(list)
        for name, param, depth, num_depths in self._depths(module):
            key = next((key for key in keys if key in name), None)
            used.add(key)
            if not param.requires_grad:
                continue
            custom = {} if key is None else custom_keys[key]
            lr_scale = rate ** (num_depths - 1 - depth) * custom.get('lr_mult', 1.0)
            decays = param.ndim > 1 and id(param) not in exempt and not _NO_DECAY.search(name)
            decay_mult = custom.get('decay_mult', float(decays))
            group = groups.setdefault((lr_scale, decay_mult), dict(params=[], param_names=[]))
            group['params'].append(param)
            group['param_names'].append(name)
            of_depth[depth, num_depths].append((param.numel(), lr_scale, decay_mult))
        for (lr_scale, decay_mult), group in groups.items():
            group.update(lr=self.base_lr * lr_scale, lr_scale=lr_scale)
            if decay_mult == 0:
                group['weight_decay'] = 0.0
            elif self.base_wd is not None:
                group['weight_decay'] = self.base_wd * decay_mult
            params.append(group)
        self._log(groups, of_depth)
        for key in keys:
            if key not in used:
                print_log(f'paramwise_cfg: custom_keys[{key!r}] matches no parameter', 'current', logging.WARNING)

    def _depths(self, model: nn.Module) -> list[tuple[str, Tensor, int, int]]:
        """Name without wrappers, parameter, depth and number of depths of each parameter, frozen ones too."""
        backbones: dict[str, Any] = {}
        for path, module in model.named_modules():
            name = without_wrappers(path + '.')
            inside = any(name.startswith(prefix) for prefix in backbones)
            if name.split('.')[-2:] != ['backbone', ''] or inside:
                continue
            if not hasattr(module, 'get_layer_depth'):
                raise AttributeError(
                    f'{name[:-1]} of {type(model).__name__}: {type(module).__name__} has no method get_layer_depth, '
                    'which gives the depth of a parameter'
                )
            backbones[name] = module
        if not backbones:
            raise AttributeError(f'{type(model).__name__} has no attribute backbone, whose depths set learning rates')
        found: list[tuple[str, Tensor, int, int]] = []
        graded = False
        for wrapped, param in model.named_parameters():
            name = without_wrappers(wrapped)
            # Parameters outside the backbone have the full rate.
            depth, num_depths = 0, 1
            prefix = next((prefix for prefix in backbones if name.startswith(prefix)), None)
            if prefix is not None:
                depth, num_depths = backbones[prefix].get_layer_depth(name, prefix)
                graded |= depth != num_depths - 1
            found.append((name, param, depth, num_depths))
        rate = self.paramwise_cfg['layer_decay_rate']
        if rate != 1 and not graded:
            kinds = ' and '.join(type(backbone).__name__ for backbone in backbones.values())
            raise ValueError(
                f'layer_decay_rate={rate} would have no effect: get_layer_depth of {kinds} '
                'gives every parameter of the backbone the last depth'
            )
        return found

    def _log(self, groups: dict, of_depth: dict) -> None:
        scales = sorted({lr_scale for lr_scale, _ in groups})
        sizes = [numel for entries in of_depth.values() for numel, _, decay_mult in entries if decay_mult]
        print_log(
            f'{len(groups)} parameter groups: learning rates {self.base_lr * scales[0]:.3g} to '
            f'{self.base_lr * scales[-1]:.3g}, {sum(sizes):,} parameters with weight decay',
            logger='current',
        )
        for (depth, num_depths), entries in sorted(of_depth.items(), key=lambda item: item[0][0] - item[0][1]):
            where = f'depth {depth} of {num_depths}' if num_depths > 1 else 'outside the backbone'
            rates = sorted({f'{lr_scale:.3g}' for _, lr_scale, _ in entries})
            numel, decayed = sum(e[0] for e in entries), sum(e[0] for e in entries if e[2])
            print_log(
                f'{where}: lr_scale {", ".join(rates)}; {numel:,} parameters, {decayed:,} with weight decay',
                logger='current',
                level=logging.DEBUG,
            )
