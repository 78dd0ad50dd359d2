"""Support for mmengine's training strategies for large models (FSDP, DeepSpeed)."""

from importlib.util import find_spec

from mmengine.config import Config
from torch import nn

from ..utils.errors import UserError
from .config_parts import type_name


def wrap_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """An ``auto_wrap_policy`` of FSDP: every block is a unit, gathered when it runs and freed afterwards.

    FSDP asks with ``recurse=True`` whether to visit the module's children: always yes.
    """
    return recurse or getattr(module, 'repeated', False)


def check_strategy(cfg: Config) -> None:
    """Refuse a strategy that cannot run here, before mmengine fails with a less clear message.

    Raises:
        UserError: If DeepSpeed is not installed, or a strategy of several processes has no launcher.
    """
    strategy = cfg.get('strategy')
    if strategy is None:
        return
    name = type_name(strategy['type'])
    if name == 'DeepSpeedStrategy' and find_spec('deepspeed') is None:
        raise UserError('strategy DeepSpeedStrategy: deepspeed is not installed: pip install deepspeed')
    if name != 'SingleDeviceStrategy' and cfg.get('launcher', 'none') == 'none':
        raise UserError(
            f'strategy {name} trains in several processes: start it with tools/dist_train.sh or tools/slurm_train.sh'
        )
