import os

import pytest
import torch
import torch.distributed as torch_dist
from mmengine.config import Config
from mmengine.optim import AmpOptimWrapper

from mmmap.engine import cpu_config, process_group
from mmmap.engine.cpu_config import adapt_to_cpu
from mmmap.engine.process_group import init_cpu_process_group
from mmmap.utils.errors import UserError


def _config(launcher='none', **more):
    return Config(
        dict(
            optim_wrapper=dict(
                type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic', optimizer=dict(type='AdamW', lr=1.0)
            ),
            env_cfg=dict(cudnn_benchmark=True, dist_cfg=dict(backend='nccl', timeout=60)),
            train_dataloader=dict(batch_size=2, pin_memory=True),
            test_dataloader=None,
            val_cfg=dict(fp16=True),
            launcher=launcher,
            **more,
        )
    )


@pytest.fixture
def no_accelerator(monkeypatch):
    monkeypatch.setattr(cpu_config, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(process_group, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(cpu_config, 'cpu_has_fast_bfloat16', lambda: False)


def test_nothing_changes_with_an_accelerator(monkeypatch):
    monkeypatch.setattr(cpu_config, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(process_group, 'get_device', lambda: 'cuda')
    cfg = _config('pytorch')
    before = cfg.to_dict()
    assert adapt_to_cpu(cfg) == []
    init_cpu_process_group(cfg)
    assert cfg.to_dict() == before
    assert not torch_dist.is_initialized()


@pytest.mark.parametrize('kind', ['AmpOptimWrapper', 'mmengine.AmpOptimWrapper', AmpOptimWrapper])
def test_amp_becomes_float32_in_one_line(no_accelerator, kind):
    cfg = _config()
    cfg.optim_wrapper.type = kind
    messages = adapt_to_cpu(cfg)
    assert len(messages) == 1
    assert 'AmpOptimWrapper -> OptimWrapper' in messages[0] and 'float32' in messages[0]
    assert cfg.optim_wrapper.to_dict() == dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0))
    assert cfg.val_cfg.fp16 is False
    assert cfg.train_dataloader.pin_memory is False
    assert 'model_wrapper_cfg' not in cfg
    assert cfg.env_cfg.dist_cfg.backend == 'nccl', 'changed without a launcher'


@pytest.mark.parametrize('dtype', ['bfloat16', torch.bfloat16])
def test_bfloat16_stays_on_a_cpu_that_is_fast_in_it(no_accelerator, monkeypatch, dtype):
    monkeypatch.setattr(cpu_config, 'cpu_has_fast_bfloat16', lambda: True)
    cfg = _config()
    cfg.optim_wrapper.dtype = dtype
    (message,) = adapt_to_cpu(cfg)
    assert 'AmpOptimWrapper -> CPUAmpOptimWrapper' in message and 'bfloat16' in message
    assert cfg.optim_wrapper.to_dict() == dict(type='CPUAmpOptimWrapper', optimizer=dict(type='AdamW', lr=1.0))
    assert cfg.val_cfg.fp16 is True


@pytest.mark.parametrize(('dtype', 'scope'), [('float16', 'mmpretrain'), (None, None), ('bfloat16', 'mmdet')])
def test_other_mixed_precision_becomes_float32_there_too(no_accelerator, monkeypatch, dtype, scope):
    monkeypatch.setattr(cpu_config, 'cpu_has_fast_bfloat16', lambda: True)
    cfg = _config(default_scope=scope)
    cfg.optim_wrapper.dtype = dtype
    (message,) = adapt_to_cpu(cfg)
    assert cfg.optim_wrapper.type == 'OptimWrapper' and 'float32' in message
    assert cfg.val_cfg.fp16 is False


def test_launcher_gets_gloo_and_no_device_ids(no_accelerator):
    cfg = _config('pytorch', find_unused_parameters=True)
    assert any('gloo' in message for message in adapt_to_cpu(cfg))
    assert cfg.env_cfg.dist_cfg.to_dict() == dict(backend='gloo', timeout=60)
    assert cfg.env_cfg.cudnn_benchmark
    assert cfg.model_wrapper_cfg.to_dict() == dict(
        type='MMDistributedDataParallel', broadcast_buffers=False, find_unused_parameters=True, device_ids=None
    )


def test_sync_bn_becomes_bn_where_processes_would_talk(no_accelerator):
    norm = dict(type='SyncBN', requires_grad=True)
    model = dict(backbone=dict(norm_cfg=norm), decode_head=[dict(norm_cfg=norm), dict(norm_cfg=dict(type='GN'))])
    cfg = _config('pytorch', model=model)
    assert any('SyncBN -> BN' in message for message in adapt_to_cpu(cfg))
    assert cfg.model.backbone.norm_cfg.to_dict() == dict(type='BN', requires_grad=True)
    assert [head.norm_cfg.type for head in cfg.model.decode_head] == ['BN', 'GN']
    alone = _config(model=model)
    adapt_to_cpu(alone)
    assert alone.model.backbone.norm_cfg.type == 'SyncBN'


def test_configured_wrapper_is_kept(no_accelerator):
    cfg = _config('pytorch', model_wrapper_cfg=dict(type='MMDistributedDataParallel', static_graph=True))
    adapt_to_cpu(cfg)
    assert cfg.model_wrapper_cfg.to_dict() == dict(type='MMDistributedDataParallel', static_graph=True, device_ids=None)


@pytest.mark.parametrize(
    ('launcher', 'variables'),
    [
        ('pytorch', dict(RANK='0', WORLD_SIZE='1', LOCAL_RANK='0')),
        ('slurm', dict(SLURM_PROCID='0', SLURM_NTASKS='1', SLURM_LOCALID='0')),
        ('mpi', dict(OMPI_COMM_WORLD_RANK='0', OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_LOCAL_RANK='0')),
    ],
)
def test_process_group_of_each_launcher(no_accelerator, monkeypatch, launcher, variables):
    # A copy: the function writes into it.
    monkeypatch.setattr(os, 'environ', {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '0', **variables})
    started = {}
    monkeypatch.setattr(torch_dist, 'init_process_group', lambda **options: started.update(options))
    cfg = _config(launcher)
    # A config without any env_cfg must do as well.
    cfg.pop('env_cfg')
    adapt_to_cpu(cfg)
    cfg.env_cfg.dist_cfg.timeout = 90
    init_cpu_process_group(cfg)
    assert started['backend'] == 'gloo'
    assert started['timeout'].total_seconds() == 90
    assert (os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['LOCAL_RANK']) == ('0', '1', '0')


def test_missing_launcher_variable_is_named(no_accelerator, monkeypatch):
    monkeypatch.setattr(os, 'environ', {'MASTER_ADDR': '127.0.0.1'})
    cfg = _config('mpi')
    adapt_to_cpu(cfg)
    with pytest.raises(UserError, match='--launcher mpi: the variable OMPI_COMM_WORLD_RANK is not set'):
        init_cpu_process_group(cfg)
