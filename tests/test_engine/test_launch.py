import argparse

import pytest
import torch
from mmengine.config import Config

from mmmap.command_line import add_common_options
from mmmap.engine import launch
from mmmap.engine.launch import enable_amp, enable_compile, load_config, set_resume
from mmmap.utils.errors import UserError


def _load(tmp_path, text, *options):
    path = tmp_path / 'a_config.py'
    path.write_text(text)
    parser = argparse.ArgumentParser()
    parser.add_argument('config')
    add_common_options(parser)
    return load_config(parser.parse_args([str(path), *options]))


def test_defaults_of_a_config(tmp_path):
    cfg = _load(tmp_path, 'train_dataloader = dict(num_workers=0)\nval_dataloader = dict(num_workers=2)')
    assert cfg.default_scope == 'mmpretrain'
    assert cfg.work_dir == 'work_dirs/a_config'
    assert cfg.launcher == 'none'
    assert not cfg.train_dataloader.persistent_workers and cfg.val_dataloader.persistent_workers
    assert cfg.train_dataloader.collate_fn.type == 'default_collate'


def test_configs_of_other_packages_keep_their_data_loaders(tmp_path):
    cfg = _load(tmp_path, "default_scope = 'mmseg'\nwork_dir = 'w'\ntrain_dataloader = dict(num_workers=2)")
    assert cfg.train_dataloader.to_dict() == dict(num_workers=2)
    assert cfg.work_dir == 'w'


def test_options_win_over_the_config(tmp_path):
    options = ['--work-dir', 'mine', '--cfg-options', 'model.arch=tiny', 'model.depth=0.5', '--launcher', 'slurm']
    cfg = _load(tmp_path, "work_dir = 'w'\nmodel = dict(type='Model', arch='base')", *options)
    assert (cfg.work_dir, cfg.model.arch, cfg.model.depth, cfg.launcher) == ('mine', 'tiny', 0.5, 'slurm')


@pytest.mark.parametrize(
    ('device', 'bfloat16', 'expected'),
    [
        ('cuda', True, ('bfloat16', 1.0)),
        ('cuda', False, ('float16', 'dynamic')),
        ('cpu', False, ('float16', 'dynamic')),
        ('cpu', True, ('bfloat16', 1.0)),
    ],
)
def test_amp_type_follows_the_device(monkeypatch, device, bfloat16, expected):
    monkeypatch.setattr(launch, 'get_device', lambda: device)
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: bfloat16)
    monkeypatch.setattr(launch, 'cpu_has_fast_bfloat16', lambda: bfloat16)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='SGD'))))
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert (cfg.optim_wrapper.dtype, cfg.optim_wrapper.loss_scale) == expected


def test_amp_leaves_what_is_configured_and_names_what_it_cannot_switch():
    cfg = Config(dict(optim_wrapper=dict(type='AmpOptimWrapper', dtype='float16')))
    enable_amp(cfg)
    assert cfg.optim_wrapper.to_dict() == dict(type='AmpOptimWrapper', dtype='float16')
    with pytest.raises(UserError, match='ApexOptimWrapper'):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


def test_resume_keeps_load_from_when_there_is_nothing_to_resume(tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path), load_from='pretrained.pth'))
    messages = set_resume(cfg, 'auto')
    assert 'starts from the beginning' in messages[-1]
    assert (cfg.resume, cfg.load_from) == (False, 'pretrained.pth')
    torch.save({'state_dict': {}}, tmp_path / 'iter_5.pth')
    set_resume(cfg, 'auto')
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'iter_5.pth'))
    with pytest.raises(UserError, match='not found'):
        set_resume(cfg, str(tmp_path / 'iter_6.pth'))


def test_resume_from_a_file_where_the_run_has_none_of_its_own(tmp_path):
    torch.save({'state_dict': {}}, tmp_path / 'other.pth')
    cfg = Config(dict(work_dir=str(tmp_path)))
    set_resume(cfg, 'auto', str(tmp_path / 'other.pth'))
    assert (cfg.resume, cfg.load_from) == (True, str(tmp_path / 'other.pth'))
    torch.save({'state_dict': {}}, tmp_path / 'iter_5.pth')
    set_resume(cfg, 'auto', str(tmp_path / 'other.pth'))
    assert cfg.load_from == str(tmp_path / 'iter_5.pth')


def test_compile_joins_the_hooks_once():
    cfg = Config(dict(custom_hooks=[dict(type='KNNHook'), dict(type='mmmap.CompileHook', backend='eager')]))
    enable_compile(cfg, 'reduce-overhead')
    assert cfg.custom_hooks == [dict(type='KNNHook'), dict(type='CompileHook', mode='reduce-overhead')]
    cfg = Config(dict(custom_hooks=None))
    enable_compile(cfg, 'default')
    assert cfg.custom_hooks == [dict(type='CompileHook', mode='default')]


def test_none_stands_for_no_hook_of_any_name(tmp_path):
    cfg = _load(
        tmp_path, "default_hooks = dict(guard=None, visualization=None, timer=None, logger=dict(type='LoggerHook'))"
    )
    # The timer is one that mmengine would add.
    assert cfg.default_hooks == dict(timer=None, logger=dict(type='LoggerHook'))
