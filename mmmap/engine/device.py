"""Let configs written for GPUs run where there is none, alone or in several gloo processes."""

import ctypes
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device

from .config_rules import type_name

_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_LOOPS = ('train_cfg', 'val_cfg', 'test_cfg')
# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def cpu_has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 faster than in float32: whether it has AMX."""
    # Of torch's own tests this one is private, and absent from some versions.
    return getattr(torch.cpu, '_is_amx_tile_supported', lambda: False)()


def _adapt_amp(cfg: Config) -> str | None:
    """Leave mixed precision as far as this CPU gains by it; returns what to tell the user."""
    done = []
    wrapper = cfg.get('optim_wrapper')
    is_amp = wrapper is not None and type_name(wrapper.get('type', 'OptimWrapper')) == 'AmpOptimWrapper'
    # The operators of mmcv that detectors call, NMS for one, know no bfloat16 on a CPU.
    suits = is_amp and wrapper.get('dtype') in ('bfloat16', torch.bfloat16) and cfg.get('default_scope') != 'mmdet'
    keep = suits and cpu_has_fast_bfloat16()
    if is_amp:
        # The wrapper refuses to run without an accelerator; the others do not know its own arguments.
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
    """Make batch norms that talk to other processes ordinary ones in a part of a config; returns how many."""
    if isinstance(part, dict):
        is_sync = part.get('type') == 'SyncBN'
        if is_sync:
            part['type'] = 'BN'
        return is_sync + sum(map(_replace_sync_bn, part.values()))
    return sum(map(_replace_sync_bn, part)) if isinstance(part, list | tuple) else 0


def keep_freed_memory() -> bool:
    """Let this process keep the memory of freed tensors, where its allocator is glibc's.

    By default glibc gives large blocks back to the system when they are freed, and a training step on the CPU asks for
    the same blocks again and again: every page of them is then mapped and zeroed anew, about a tenth of a step.

    Returns:
        bool: Whether the allocator took it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # Another allocator or another system.
        return False
    # No block gets a mapping of its own, and the heap is not trimmed.
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def adapt_to_device(cfg: Config) -> list[str]:
    """Change a config in place where it assumes an accelerator and this machine has none.

    Freed memory is kept, mixed precision becomes float32 (unless it is of bfloat16, the CPU has AMX and the model is no
    detector), pinned memory goes, and under a launcher nccl becomes gloo, SyncBN becomes BN, and the model wrapper, or
    FSDP's, gets no device ids. With an accelerator nothing changes.

    Args:
        cfg (Config): The config of a run, ``cfg.launcher`` set.

    Returns:
        list[str]: One line for each change that the user should know of.
    """
    if get_device() != 'cpu':
        return []
    keep_freed_memory()
    amp = _adapt_amp(cfg)
    messages = [amp] if amp else []
    for name in _DATALOADERS:
        if cfg.get(name) is not None:
            cfg[name]['pin_memory'] = False
    if cfg.get('launcher', 'none') == 'none':
        return messages
    dist_cfg = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    if dist_cfg.get('backend', 'nccl') == 'nccl':
        cfg.merge_from_dict({'env_cfg.dist_cfg.backend': 'gloo'})
        messages.append('No accelerator: the processes talk through gloo instead of nccl.')
    # A lone process has nobody to talk to: torch's own SyncBN is a BN then.
    if _replace_sync_bn(cfg.get('model')):
        messages.append('No accelerator: SyncBN -> BN in the model, whose statistics are those of each process.')
    strategy = cfg.get('strategy')
    if strategy is not None:
        if type_name(strategy['type']) == 'FSDPStrategy':
            # mmengine's default is the number of a GPU.
            cfg.merge_from_dict({'strategy.model_wrapper.device_id': 'cpu'})
            if strategy.get('state_dict_cfg') == 'full':
                # As 'full', without moving to the CPU what is there: torch 2.13 crashes over it.
                cfg.strategy.state_dict_cfg = dict(
                    state_dict_type='FULL_STATE_DICT',
                    state_dict_config=dict(type='FullStateDictConfig', rank0_only=True),
                    optim_state_dict_config=dict(
                        type='FullOptimStateDictConfig', rank0_only=True, offload_to_cpu=False
                    ),
                )
        return messages
    if cfg.get('model_wrapper_cfg') is None:
        # What mmengine does by itself when no wrapper is configured, apart from the device ids.
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    cfg.model_wrapper_cfg['device_ids'] = None
    return messages
