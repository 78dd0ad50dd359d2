"""Values that nothing could mean are errors that name their key, before anything is built."""

import sys
from copy import deepcopy
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmap.engine.config_check import check_config
from mmmap.utils.errors import UserError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tests/campaign'))
FRONT = ROOT / 'configs/map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'
INF, NAN = float('inf'), float('nan')


@pytest.fixture(scope='module')
def whole():
    return Config.fromfile(FRONT)


@pytest.mark.parametrize(
    ('key', 'values'),
    [
        ('default_hooks.checkpoint.interval', [0, 'x', None, 1.5, [], -2]),
        ('default_hooks.checkpoint.max_keep_ckpts', [0, 'x', None, -2]),
        ('default_hooks.logger.interval', [0, 'x', None]),
        ('default_hooks.logger', ['x', 3, {}]),
        ('custom_hooks', ['x', 3, ['x'], [None], [{}]]),
        ('custom_hooks.0.interval', ['x', 0, None, []]),
        ('custom_hooks.1.k', ['x', 2.5, None]),
        ('custom_hooks.1.bank_dataloader.batch_size', [0, '8']),
        ('model', ['x', None, 3, {}]),
        ('visualizer', ['x', {}]),
        ('default_scope', ['nopackage', {}, 3]),
        ('log_level', ['x', None, 1.5]),
        ('model.masking', ['x', 3]),
        ('model.backbone.img_size', ['x', None, {}]),
        ('model.backbone.drop_path_rate', [INF, 'x']),
        ('model.neck.depth', [-1]),
        ('model.head.in_dim', [-3]),
        ('model.data_preprocessor.to_rgb', ['x', 3, [True]]),
        ('optim_wrapper.optimizer.lr', [INF, NAN, -1, 'x', None, []]),
        ('optim_wrapper.optimizer.weight_decay', [INF, -1, 'x']),
        ('optim_wrapper.optimizer.betas', ['x', [0.9, 1], [0.9, 'x'], 3]),
        ('optim_wrapper.optimizer', ['x', None]),
        ('optim_wrapper.accumulative_counts', [0, -1, 'x', 1.5]),
        ('optim_wrapper.clip_grad.max_norm', [0, -1, INF, 'x']),
        ('param_scheduler', ['x', 3, {}, ['x'], [{}]]),
        ('custom_hooks.1.bank_dataloader.collate_fn.type', ['defaul_tcollate', None]),
        ('param_scheduler.0.begin', [-1, 'x', INF]),
        ('param_scheduler.1.eta_min', ['x', INF]),
        ('train_cfg.max_epochs', [0, -1, 'x', None, INF, 1.5]),
        ('train_cfg.val_interval', [0, 'x']),
        ('train_cfg', ['x', 3, {}, dict(max_epochs=3), dict(by_epoch=True, max_iters=3)]),
        ('train_dataloader.batch_size', [0, -1, '8', None, 1.5, True]),
        ('train_dataloader.num_workers', [-1, 'x', None]),
        ('train_dataloader.sampler', ['x', 3, None, []]),
        ('train_dataloader.sampler.shuffle', ['x', None]),
        ('train_dataloader.dataset', ['x', 3, None]),
        ('train_dataloader.dataset.pipeline', ['x', [3], ['x'], [{}]]),
        ('train_dataloader.dataset.indices', ['x', {}]),
        ('train_dataloader.drop_last', ['x', 3]),
        ('env_cfg.mp_cfg', ['x', None]),
        ('randomness', ['x', {}]),
        ('randomness.seed', ['x', -1, 1.5]),
        ('model.data_preprocessor.std', [0, -1, 'x', {}]),
        ('val_dataloader', ['x', 3]),
        ('default_scope', ['no_such_package', 3]),
    ],
)
def test_the_key_of_a_wrong_value_is_named(whole, key, values):
    for value in values:
        cfg = deepcopy(whole)
        if key.endswith('std'):
            value = [1.0, value]
        cfg.merge_from_dict({key: dict(value, _delete_=True) if isinstance(value, dict) else value})
        with pytest.raises(UserError) as error:
            check_config(cfg)
        text = str(error.value)
        shown = ''.join(f'[{step}]' if step.isdigit() else f'.{step}' for step in key.split('.'))[1:]
        assert text.startswith(f'{FRONT}: ') and shown in text and '\n' not in text, (value, text)


def test_right_values_stay(whole):
    cfg = deepcopy(whole)
    cfg.merge_from_dict(
        {
            'default_hooks.checkpoint.interval': -1,
            'default_hooks.timer': None,
            'custom_hooks': None,
            'optim_wrapper.optimizer.lr': 0,
            'train_cfg.max_epochs': 16.0,
            'train_dataloader.persistent_workers': 1,
            'my_own_variable': 'x',
            'T': 3,
            'lr': 0.1,
            'my_interval': dict(batch_size=0),
        }
    )
    cfg.param_scheduler = dict(type='ConstantLR', factor=0.1)
    assert check_config(cfg) == []
    one = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    cfg.optim_wrapper = dict(constructor='ConstructorOfSeveral', generator=one, discriminator=one)
    assert check_config(cfg) == []


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('env_cfg.cudnn_benchmrk', 'cudnn_benchmark'),
        ('env_cfg.mp_cfg.mp_strat_method', 'mp_start_method'),
        ('env_cfg.dist_cfg.bakcend', 'backend'),
        ('default_hooks.loger', 'logger'),
        ('auto_scale_lr.base_batchsize', 'base_batch_size'),
        ('optim_wrapper.paramwise_cfg.bias_decay_mul', 'bias_decay_mult'),
    ],
)
def test_keys_that_would_be_ignored_are_named(whole, key, meant):
    cfg = deepcopy(whole)
    cfg.merge_from_dict({key: 1})
    with pytest.raises(UserError, match=f'{key}: nothing reads this key; did you mean {meant}'):
        check_config(cfg)


def test_misspelt_names_at_the_top_are_told(whole):
    cfg = Config(dict(custom_hoks=[], laod_from='x', test_pipeline=[], train_pipeline=[], vis_backends=[]))
    messages = check_config(cfg)
    assert len(messages) == 2
    assert 'custom_hoks; did you mean custom_hooks' in messages[0] and 'laod_from' in messages[1]


def test_the_campaign_spoils_every_place_in_every_way(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'tests/test_configs'))
    from mutate_configs import mutations

    cfg = dict(model=dict(type='MAP', ratio=0.5), variable=1, train_cfg=dict(max_epochs=1))
    found = [str(mutation) for mutation in mutations(cfg)]
    assert len(found) == len(set(found)) == 5 * 9 + 1
    assert {"set model.ratio 'x'", "misspell type model.type 'AMP'", 'remove train_cfg.max_epochs None'} <= set(found)
    for mutation in mutations(cfg):
        spoilt = deepcopy(cfg)
        mutation.apply(spoilt)
        assert spoilt != cfg
