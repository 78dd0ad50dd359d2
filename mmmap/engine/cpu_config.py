"""Adapts configs written for GPUs to a machine without one, in one process or several."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from .config_parts import DATALOADERS, type_name
from .cpu_features import cpu_has_fast_bfloat16, keep_freed_memory

_LOOPS = ('train_cfg', 'val_cfg', 'test_cfg')


def _adapt_amp(cfg: Config) -> str | None:
    """Keep mixed precision only if this CPU gains from it; returns a line for the user."""
    done = []
    wrapper = cfg.get('optim_wrapper')
    is_amp = wrapper is not None and type_name(wrapper.get('type', 'OptimWrapper')) == 'AmpOptimWrapper'
    # Detectors need operators of mmcv, such as NMS, that have no bfloat16 on a CPU.
    suits = is_amp and wrapper.get('dtype') in ('bfloat16', torch.bfloat16) and cfg.get('default_scope') != 'mmdet'
    keep = suits and cpu_has_fast_bfloat16()
    if is_amp:
        # AmpOptimWrapper refuses to run without an accelerator; the other wrappers lack these arguments.
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(name, None)
        wrapper['type'] = 'CPUAmpOptimWrapper' if keep else 'OptimWrapper'
        done.append(f'optim_wrapper: AmpOptimWrapper -> {wrapper["type"]}')
    if keep:
        return f'No accelerator, but a CPU with AMX: mixed precision stays, in bfloat16 ({done[0]}).'
    for name in _LOOPS:
        loop = cfg.get(name)
        if loop is not None and loop.get('fp16'):
            loop['fp16'] = False
            done.append(f'{name}: fp16 -> False')
    return f'No accelerator: mixed precision is off, computing in float32 ({", ".join(done)}).' if done else None


def _replace_sync_bn(part: Any) -> int:
    """Replace SyncBN by BN in a part of a config; returns how often."""
    if isinstance(part, dict):
        is_sync = part.get('type') == 'SyncBN'
        if is_sync:
            part['type'] = 'BN'
        return is_sync + sum(map(_replace_sync_bn, part.values()))
    return sum(map(_replace_sync_bn, part)) if isinstance(part, list | tuple) else 0


def adapt_to_cpu(cfg: Config) -> list[str]:
    """Adapt a config to a machine without an accelerator, in place. With an accelerator nothing changes.

    Freed memory is kept and memory is not pinned. Mixed precision becomes float32, unless it is in bfloat16, the CPU
    has AMX and the model is no detector. Under a launcher nccl becomes gloo, SyncBN becomes BN, and the model wrapper
    gets no device ids.

    Args:
        cfg (Config): The config of a run, with ``cfg.launcher``.

    Returns:
        list[str]: A line for each change that the user should know.
    """
    if get_device() != 'cpu':
        return []
    keep_freed_memory()
    amp = _adapt_amp(cfg)
    messages = [amp] if amp else []
    for name in DATALOADERS:
        if cfg.get(name) is not None:
            cfg[name]['pin_memory'] = False
    if cfg.get('launcher', 'none') == 'none':
        return messages
    dist_cfg = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    if dist_cfg.get('backend', 'nccl') == 'nccl':
        cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
        messages.append('No accelerator: the processes communicate by gloo instead of nccl.')
    # Without a launcher torch's SyncBN computes as BN does.
    if _replace_sync_bn(cfg.get('model')):
        messages.append('No accelerator: SyncBN -> BN in the model, whose statistics are those of each process.')
    strategy = cfg.get('strategy')
    if strategy is not None:
        if type_name(strategy['type']) == 'FSDPStrategy':
            # mmengine's default is a GPU.
            cfg.merge_from_dict({'strategy.model_wrapper.device_id': 'cpu'})
            if strategy.get('state_dict_cfg') == 'full':
                # As 'full', but without offload to the CPU, with which torch 2.13 crashes on a CPU.
                cfg.strategy.state_dict_cfg = dict(
                    state_dict_type='FULL_STATE_DICT',
                    state_dict_config=dict(type='FullStateDictConfig', rank0_only=True),
                    optim_state_dict_config=dict(
                        type='FullOptimStateDictConfig', rank0_only=True, offload_to_cpu=False
                    ),
                )
        return messages
    if cfg.get('model_wrapper_cfg') is None:
        # mmengine's default but for the device ids.
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    cfg.model_wrapper_cfg['device_ids'] = None
    return messages
