"""From a config file and command-line options to a Runner, shared by the training and test tools."""

import argparse
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .checkpoint import check_checkpoint_file, find_whole_checkpoint, require_agreement
from .config_check import check_config
from .config_file import drop_options_of_workers, read_config
from .config_rules import OWN_HOOKS, type_name
from .data_loaders import leave_classes_to_us, set_loader_defaults
from .device import adapt_to_device, cpu_has_fast_bfloat16
from .errors import UserError
from .hooks import CheckpointFitHook, ClassNamesHook
from .hooks.side_product_hook import protect_side_products
from .options import apply_options
from .process_group import init_cpu_process_group
from .strategies import check_strategy

_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and merge the common options into it.

    Args:
        args (argparse.Namespace): ``config`` and the options of :func:`mmmap.command_line.add_common_options`.

    Raises:
        UserError: If there is no such file, or a setting in it or of an option cannot be meant.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    if args.cfg_options is not None:
        apply_options(cfg, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    cfg.setdefault('default_scope', 'mmpretrain')
    for message in check_config(cfg):
        if os.environ.get('RANK', '0') == '0':
            # There is no log yet.
            print(f'warning: {message}', file=sys.stderr)
    drop_options_of_workers(cfg._cfg_dict)
    _drop_hooks(cfg)
    if cfg.default_scope == 'mmpretrain':
        _set_dataloader_defaults(cfg)
    return cfg


def _drop_hooks(cfg: Config) -> None:
    # mmengine takes None for no hook only of the default hooks that it knows itself.
    for name, hook in list((cfg.get('default_hooks') or {}).items()):
        if hook is None and name not in OWN_HOOKS:
            cfg.default_hooks.pop(name)


def _set_dataloader_defaults(cfg: Config) -> None:
    # mmpretrain's configs leave these to its tools; mmseg's and mmdet's count on mmengine's own defaults.
    for name in _DATALOADERS:
        loader = cfg.get(name)
        if loader is not None:
            set_loader_defaults(loader)


def enable_amp(cfg: Config) -> None:
    """Switch a config's optimizer wrapper to mixed precision, in place.

    The type is bfloat16, which needs no loss scaling, where the device has it and float16 where not.

    Args:
        cfg (Config): The config of a run.

    Raises:
        UserError: If the optimizer wrapper is of a kind that has no mixed-precision counterpart.
    """
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper.get('type', 'OptimWrapper'))
    if kind == 'AmpOptimWrapper':
        return
    if kind != 'OptimWrapper':
        raise UserError(f'--amp: optim_wrapper.type is {kind}, expected OptimWrapper or AmpOptimWrapper')
    device = get_device()
    use_bfloat16 = torch.cuda.is_bf16_supported() if device == 'cuda' else device == 'cpu' and cpu_has_fast_bfloat16()
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('dtype', 'bfloat16' if use_bfloat16 else 'float16')
    wrapper.setdefault('loss_scale', 1.0 if use_bfloat16 else 'dynamic')


def enable_compile(cfg: Config, mode: str) -> None:
    """Let a run compile its encoders and decoders, in place.

    Args:
        cfg (Config): The config of a run.
        mode (str): As of :class:`CompileHook`. The new hook replaces one that the config has already.
    """
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook['type']) != 'CompileHook']
    cfg.custom_hooks = [*hooks, dict(type='CompileHook', mode=mode)]


def set_resume(cfg: Config, resume: str, otherwise: str | None = None) -> list[str]:
    """Make a run go on from a checkpoint, in place.

    Args:
        cfg (Config): The config of a run, ``cfg.work_dir`` set.
        resume (str): A checkpoint, or ``'auto'`` for the last whole one of the work directory. If that has none,
            the run starts from the beginning, with ``cfg.load_from`` as configured.
        otherwise (str, optional): The checkpoint to go on from where ``'auto'`` finds none.

    Returns:
        list[str]: What to tell the user, one line each.

    Raises:
        UserError: If the named checkpoint is not there or cut off.
    """
    if resume == 'auto':
        path, messages = find_whole_checkpoint(cfg.work_dir)
        if path is None and otherwise is not None:
            return set_resume(cfg, otherwise)
    else:
        check_checkpoint_file(resume)
        path, messages = resume, [f'Resuming from {resume}.']
    cfg.resume = path is not None
    if path is not None:
        cfg.load_from = path
    return messages


def build_runner(cfg: Config, messages: list[str]) -> Runner:
    """Build the Runner of a config on this machine, accelerator or not.

    Args:
        cfg (Config): The config of a run; changed to what the machine has.
        messages (list[str]): Lines for the log, which exists only once the Runner does.

    Raises:
        UserError: If the config has a strategy that lacks its package or a launcher.
    """
    check_strategy(cfg)
    messages = messages + adapt_to_device(cfg)
    init_cpu_process_group(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    require_agreement(cfg.load_from if cfg.get('resume') else None)
    protect_side_products(runner)
    runner.register_hook(ClassNamesHook())
    # From these the loops are built; what the run dumps stays as it was written. mmdet's own ConcatDataset takes any.
    for name in _DATALOADERS if cfg.get('default_scope') != 'mmdet' else ():
        leave_classes_to_us((getattr(runner, f'_{name}') or {}).get('dataset'))
    for message in messages:
        runner.logger.info(message)
    return runner


def require_fit(runner: Runner, checkpoint: str) -> None:
    """Make a Runner refuse a checkpoint of another model instead of loading what fits.

    Args:
        runner (Runner): Has not loaded the checkpoint yet.
        checkpoint (str): Its path.
    """
    runner.register_hook(CheckpointFitHook(checkpoint))
