"""Builds the Runner of the training and test tools from a config file and command-line options."""

import argparse
import os
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..utils.errors import UserError
from .cfg_options import apply_options
from .checkpoint_files import check_checkpoint_file, find_whole_checkpoint, require_same_checkpoint
from .config_check import check_config
from .config_file import drop_worker_options, read_config
from .config_parts import DATALOADERS, type_name
from .config_rules import OWN_HOOKS
from .cpu_config import adapt_to_cpu
from .cpu_features import cpu_has_fast_bfloat16
from .data_loaders import allow_other_classes, set_loader_defaults
from .hooks import CheckpointFitHook, ClassNamesHook, DenseCheckHook
from .hooks.side_product_hook import protect_side_products
from .process_group import init_cpu_process_group
from .sample_errors import name_faulty_samples
from .strategies import check_strategy


def load_config(args: argparse.Namespace) -> Config:
    """Read the config file and merge options of :func:`mmmap.command_line.add_common_options` into it.

    Raises:
        UserError: If the file does not exist, or a setting in it or an option is wrong.
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
            # The log does not exist yet.
            print(f'warning: {message}', file=sys.stderr)
    drop_worker_options(cfg._cfg_dict)
    # mmengine accepts None as "no hook" only for its own default hooks.
    for name, hook in list((cfg.get('default_hooks') or {}).items()):
        if hook is None and name not in OWN_HOOKS:
            cfg.default_hooks.pop(name)
    # mmpretrain's tools set these defaults; configs of mmseg and mmdet rely on those of mmengine.
    for name in DATALOADERS if cfg.default_scope == 'mmpretrain' else ():
        if cfg.get(name) is not None:
            set_loader_defaults(cfg[name])
    return cfg


def enable_amp(cfg: Config) -> None:
    """Switch the optimizer wrapper of a config to mixed precision, in place.

    The type is bfloat16, which needs no loss scaling, if the device has it, else float16.

    Raises:
        UserError: If there is no such wrapper for mixed precision.
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
    """Let a run compile its encoders and decoders, in place. Replaces a ``CompileHook`` of the config."""
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if type_name(hook['type']) != 'CompileHook']
    cfg.custom_hooks = [*hooks, dict(type='CompileHook', mode=mode)]


def set_resume(cfg: Config, resume: str, otherwise: str | None = None) -> list[str]:
    """Make a run resume from a checkpoint, in place.

    Args:
        cfg (Config): The config of a run, with ``cfg.work_dir``.
        resume (str): A checkpoint, or ``'auto'`` for the last undamaged one of the work directory. If there is none,
            the run starts from the beginning, with ``cfg.load_from`` as configured.
        otherwise (str, optional): The checkpoint to resume from if ``'auto'`` finds none.

    Returns:
        list[str]: Messages for the user, one line each.

    Raises:
        UserError: If the named checkpoint does not exist or is damaged.
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
    """Build the Runner of a config, which is adapted to this machine.

    Args:
        cfg (Config): The config of a run.
        messages (list[str]): Lines for the log, which exists only when the Runner is built.

    Raises:
        UserError: If the strategy of the config lacks its package or a launcher.
    """
    check_strategy(cfg)
    messages = messages + adapt_to_cpu(cfg)
    init_cpu_process_group(cfg)
    name_faulty_samples(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    require_same_checkpoint(cfg.load_from if cfg.get('resume') else None)
    protect_side_products(runner)
    runner.register_hook(ClassNamesHook())
    if not any(isinstance(hook, DenseCheckHook) for hook in runner.hooks):
        runner.register_hook(DenseCheckHook())
    # The loops are built from these; the dumped config stays as written. mmdet's ConcatDataset allows other classes.
    for name in DATALOADERS if cfg.get('default_scope') != 'mmdet' else ():
        allow_other_classes((getattr(runner, f'_{name}') or {}).get('dataset'))
    for message in messages:
        runner.logger.info(message)
    return runner


def require_fit(runner: Runner, checkpoint: str) -> None:
    """Make a Runner refuse the checkpoint at a path if it is of another model. Call it before it is loaded."""
    runner.register_hook(CheckpointFitHook(checkpoint))
