import pytest
from mmengine.config import Config

from mmmap.engine import strategies
from mmmap.engine.cpu_config import adapt_to_cpu
from mmmap.engine.strategies import check_strategy, wrap_blocks
from mmmap.utils.errors import UserError


def cfg_of(name, launcher):
    return Config(dict(strategy=dict(type=name), launcher=launcher))


def test_a_missing_deepspeed_is_named(monkeypatch):
    monkeypatch.setattr(strategies, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install deepspeed'):
        check_strategy(cfg_of('DeepSpeedStrategy', 'pytorch'))
    monkeypatch.setattr(strategies, 'find_spec', lambda name: object())
    check_strategy(cfg_of('DeepSpeedStrategy', 'pytorch'))


@pytest.mark.parametrize('name', ['FSDPStrategy', 'mmengine.DDPStrategy'])
def test_a_strategy_of_several_processes_needs_a_launcher(name):
    with pytest.raises(UserError, match='tools/dist_train'):
        check_strategy(cfg_of(name, 'none'))
    check_strategy(cfg_of(name, 'slurm'))


def test_other_runs_need_nothing():
    check_strategy(Config(dict(launcher='none')))
    check_strategy(cfg_of('SingleDeviceStrategy', 'none'))


def test_fsdp_without_an_accelerator_is_on_the_cpu():
    cfg = cfg_of('FSDPStrategy', 'pytorch')
    adapt_to_cpu(cfg)
    assert cfg.strategy.model_wrapper.device_id == 'cpu'
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    assert cfg.get('model_wrapper_cfg') is None
    assert cfg.strategy.get('state_dict_cfg') is None
    cfg.strategy.state_dict_cfg = 'full'
    adapt_to_cpu(cfg)
    assert cfg.strategy.state_dict_cfg.state_dict_type == 'FULL_STATE_DICT'


def test_blocks_are_units_of_their_own(build_map):
    model = build_map('MT')
    units = [name for name, module in model.named_modules() if wrap_blocks(module, False, 0)]
    assert units == ['backbone.encoder.blocks.0', 'backbone.encoder.blocks.1', 'neck.blocks.0', 'neck.blocks.1']
    assert all(wrap_blocks(module, True, 0) for module in model.modules())
