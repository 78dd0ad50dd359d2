"""What mmengine's training strategies for large models (FSDP, DeepSpeed) have to know of this toolbox."""

from importlib.util import find_spec

from mmengine.config import Config
from torch import nn

from .config_rules import type_name
from .errors import UserError


def wrap_blocks(module: nn.Module, recurse: bool, nonwrapped_numel: int) -> bool:
    """Make every block a unit of its own, gathered when it is needed and freed behind it: an ``auto_wrap_policy``.

    Args:
        module (nn.Module): The module in question.
        recurse (bool): Whether the question is if its children are to be looked at; they always are.
        nonwrapped_numel (int): Parameters not wrapped yet; it does not matter how many.

    Returns:
        bool: The answer.
    """
    return recurse or getattr(module, 'repeated', False)


def check_strategy(cfg: Config) -> None:
    """Say what is missing for the strategy of a config, before mmengine fails over it with other words.

    Args:
        cfg (Config): The config of a run, ``cfg.launcher`` set.

    Raises:
        UserError: If DeepSpeed is wanted and not installed, or a strategy of several processes has no launcher.
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
