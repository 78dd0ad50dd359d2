import copy
import time
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import LinearLR, OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch import nn

from mmmap.engine.schedules import (
    _step_all,
    differing_schedules,
    end_short_schedules,
    replay,
    same_schedules,
    schedule_settings,
)

WARMUP = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=7)
SCHEDULES = {
    'warm-up, cosine': [WARMUP, dict(type='CosineAnnealingLR', by_epoch=False, begin=7, end=40, eta_min=1e-5)],
    'cosine past its end': [dict(type='CosineAnnealingLR', by_epoch=False, T_max=9, eta_min_ratio=0.1)],
    'iterations and epochs overlap': [
        dict(type='StepLR', step_size=2, gamma=0.5, by_epoch=True),
        dict(type='ExponentialLR', gamma=0.97, by_epoch=False),
        dict(type='MultiStepLR', milestones=[1, 3], by_epoch=True),
    ],
    'poly': [
        dict(type='ConstantLR', factor=0.1, by_epoch=False, end=5),
        dict(type='PolyLR', power=0.9, by_epoch=False, end=60),
    ],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.3, total_steps=60, by_epoch=False)],
    'restarts': [
        dict(type='CosineRestartLR', periods=[10, 20, 40], restart_weights=[1, 0.5, 0.2], eta_min=1e-4, by_epoch=False)
    ],
    'momentum': [WARMUP, dict(type='CosineAnnealingMomentum', by_epoch=False, T_max=60, eta_min=0.5)],
    'weight decay': [
        dict(type='CosineAnnealingParamScheduler', param_name='weight_decay', by_epoch=False, T_max=60, eta_min=0.4)
    ],
}


def build(schedules: list[dict], groups: int = 4) -> tuple[OptimWrapper, list]:
    """An optimizer with groups of unequal values, and its schedulers."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(groups)]
    options = [dict(params=[p], lr=0.1 * 0.7**i, weight_decay=0.01 * i) for i, p in enumerate(parameters)]
    optimizer = OptimWrapper(torch.optim.AdamW(options, lr=0.1))
    return optimizer, [
        PARAM_SCHEDULERS.build(copy.deepcopy(one), default_args=dict(optimizer=optimizer)) for one in schedules
    ]


@pytest.mark.parametrize('name', SCHEDULES)
def test_point_is_reached_to_the_last_bit(name):
    expected, stepped = build(SCHEDULES[name])
    _step_all(stepped, 3, 11, 5)
    optimizer, schedulers = build(SCHEDULES[name])
    replay(optimizer, schedulers, 3, 11, 5)
    ignored = ('params', '_')
    for one, other in zip(optimizer.param_groups, expected.param_groups, strict=True):
        assert {k: v for k, v in one.items() if k not in ignored} == {
            k: v for k, v in other.items() if k not in ignored
        }
    for one, other in zip(schedulers, stepped, strict=True):
        states = [{k: v for k, v in each.state_dict().items() if k != 'anneal_func'} for each in (one, other)]
        assert states[0] == states[1]
    # And they go on alike.
    _step_all(schedulers, 0, 11, 4)
    _step_all(stepped, 0, 11, 4)
    assert [group['lr'] for group in optimizer.param_groups] == [group['lr'] for group in expected.param_groups]


def test_scheduler_of_others_counts_the_groups():
    class Own(PARAM_SCHEDULERS.get('ExponentialLR')):
        """A factor a group."""

        def _get_value(self) -> list[float]:
            return [group['lr'] * (1 - 0.01 * index) for index, group in enumerate(self.optimizer.param_groups)]

    optimizer, _ = build([])
    replay(optimizer, [Own(optimizer, gamma=1.0, by_epoch=False)], 0, 1, 2)
    assert optimizer.param_groups[2]['lr'] == pytest.approx(0.1 * 0.49 * 0.98**3)


def test_half_a_million_steps_take_seconds():
    optimizer, schedulers = build(
        [
            dict(type='LinearLR', by_epoch=False, end=50000),
            dict(type='CosineAnnealingLR', by_epoch=False, begin=50000, end=10**6),
        ],
        groups=40,
    )
    start = time.process_time()
    replay(optimizer, schedulers, 0, 1, 50000)
    assert time.process_time() - start < 3
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0.1)


def test_descriptions_tell_what_differs():
    cosine = dict(type='CosineAnnealingLR', by_epoch=False, begin=7, end=40)
    before, after = (
        [schedule_settings(one.state_dict(), type(one).__name__) for one in build(part)[1]]
        for part in ([WARMUP, cosine], [WARMUP, cosine | dict(end=50)])
    )
    assert same_schedules(before, before)
    assert not same_schedules(before, after)
    assert same_schedules(before, after, lengths=False)
    assert differing_schedules(before, after) == (
        'CosineAnnealingLR(T_max=33, end=40)',
        'CosineAnnealingLR(T_max=43, end=50)',
    )
    assert differing_schedules(before, [])[1] == 'none'
    # A checkpoint of old names no classes.
    assert same_schedules([schedule_settings(one.state_dict()) for one in build([WARMUP, cosine])[1]], before)


COSINE = dict(type='CosineAnnealingLR', T_max=4, by_epoch=True, begin=1, end=5, convert_to_iter_based=True)


@pytest.mark.parametrize(
    ('warm_up', 'length', 'unit'),
    [
        (dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True), 1, 'iteration'),
        (dict(type='LinearLR', start_factor=0.1, end=0.5, convert_to_iter_based=True), 2, 'iteration'),
        (dict(type='mmengine.LinearLR', start_factor=0.1, by_epoch=False, end=1), 7, 'iteration'),
        (dict(type=LinearLR, start_factor=0.1, end=1), 3, 'epoch'),
        (dict(type='LinearParamScheduler', param_name='lr', start_factor=0.1, begin=0, end=1), 3, 'epoch'),
        (dict(type='ConstantLR', factor=0.1, by_epoch=False, end=1), 3, 'iteration'),
        # These end by themselves.
        (dict(type='LinearLR', start_factor=0.1, end=1, convert_to_iter_based=True), 2, None),
        (dict(type='LinearLR', start_factor=0.1, end=2), 1, None),
        (dict(type='ConstantLR', factor=0.1, by_epoch=False, end=2), 3, None),
    ],
)
def test_a_warm_up_of_one_step_ends(warm_up, length, unit):
    schedules = [copy.deepcopy(warm_up), copy.deepcopy(COSINE)]
    runner = SimpleNamespace(param_schedulers=schedules, train_dataloader=range(length))
    messages = end_short_schedules(runner)
    assert ['param_scheduler[0]: ' in message and f'of one {unit} ' in message for message in messages] == [True] * (
        unit is not None
    )
    optimizer, _ = build([], groups=1)
    defaults = dict(optimizer=optimizer, epoch_length=length)
    schedulers = [PARAM_SCHEDULERS.build(one, default_args=defaults) for one in schedules]
    rates = [optimizer.param_groups[0]['lr']]
    for _ in range(2):
        _step_all(schedulers, 1, length, 0)
        rates.append(optimizer.param_groups[0]['lr'])
    assert rates[0] == pytest.approx(0.01)
    # The cosine alone, as if there had been no warm-up.
    alone, (cosine,) = build([dict(type='CosineAnnealingLR', T_max=4 * length, by_epoch=False, begin=length)], groups=1)
    _step_all([cosine], 2, length, 0)
    assert rates[2] == pytest.approx(alone.param_groups[0]['lr'])


def test_schedules_of_several_optimizers_end_too():
    short = dict(type='LinearLR', start_factor=0.1, end=1)
    runner = SimpleNamespace(param_schedulers=dict(a=[short], b=dict(short)), train_dataloader=range(3))
    assert [line.partition(':')[0] for line in end_short_schedules(runner)] == [
        'param_scheduler.a[0]',
        'param_scheduler.b',
    ]
    # Once is enough, and none is no schedule.
    assert end_short_schedules(runner) == end_short_schedules(SimpleNamespace(param_schedulers=None)) == []
