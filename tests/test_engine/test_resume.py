from pathlib import Path

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from tiny_run import config, run, weights
from torch import nn

from mmmap.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmmap.utils.errors import UserError


@pytest.fixture
def say(monkeypatch):
    """What a run tells about its settings, line by line."""
    lines = []
    info = MMLogger.info

    def note(self, text, *args, **kwargs) -> None:
        lines.append(str(text))
        info(self, text, *args, **kwargs)

    monkeypatch.setattr(MMLogger, 'info', note)

    def told() -> list[str]:
        found = [line for line in lines if line.startswith(('resumed with', 'Schedules are', 'The checkpoint'))]
        lines.clear()
        return found

    return told


def rates_of(cfg) -> dict[int, float]:
    """The rate of each step of an uninterrupted run."""
    return run(cfg)[1].rates


@pytest.fixture(scope='module')
def started(tmp_path_factory) -> Path:
    """A run of three epochs, interrupted after 7 of 15 iterations."""
    folder = tmp_path_factory.mktemp('started')
    run(config(folder), stop_after=7)
    return folder


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        (
            dict(train_cfg__max_epochs=6, param_scheduler__1__end=6),
            [
                'number of epochs: 3 -> 6',
                'schedule: CosineAnnealingLR(T_max=10, end=15) -> CosineAnnealingLR(T_max=25, ',
            ],
        ),
        (dict(optim_wrapper__optimizer__lr=0.02), ['learning rate: 0.01 -> 0.02']),
        (dict(optim_wrapper__optimizer__weight_decay=0.2), ['weight decay: 0.05 -> 0.2']),
        (dict(optim_wrapper__optimizer__betas=(0.8, 0.95)), ['betas: [0.9, 0.999] -> [0.8, 0.95]']),
        (dict(train_dataloader__batch_size=5), ['batch size per process: 2 -> 5']),
        (dict(optim_wrapper__accumulative_counts=2), ['number of accumulated batches: 1 -> 2']),
        (dict(auto_scale_lr=dict(enable=True, base_batch_size=4)), ['learning rate: 0.01 -> 0.005']),
        (dict(randomness__seed=5), ['seed: 0 -> 5']),
        (dict(train_dataloader__dataset__count=8), ['length of an epoch: 5 -> 4']),
        (dict(param_scheduler=[dict(type='StepLR', step_size=1, by_epoch=True)]), ['schedule: LinearLR(']),
    ],
)
def test_change_is_said_and_obeyed(tmp_path, started, say, changes, expected):
    cfg = config(tmp_path, **changes)
    whole = rates_of(cfg)
    say()
    runner, second = run(cfg, started / 'iter_7.pth')
    told = [line.removeprefix('resumed with another ') for line in say() if line.startswith('resumed')]
    assert len(told) == len(expected), told
    for line, start in zip(sorted(told), sorted(expected), strict=True):
        assert line.startswith(start)
    assert max(whole) == max(second.rates)
    for iteration, rate in second.rates.items():
        assert rate == pytest.approx(whole[iteration], rel=1e-9), iteration
    group = runner.optim_wrapper.param_groups[0]
    optimizer = cfg.optim_wrapper.optimizer
    assert group['weight_decay'] == optimizer.weight_decay
    assert group['betas'] == tuple(optimizer.get('betas', (0.9, 0.999)))
    assert len(runner.optim_wrapper.optimizer.state) > 0


def test_second_hook_does_nothing(tmp_path, started):
    cfg = config(tmp_path, optim_wrapper__optimizer__lr=0.02)
    whole = rates_of(cfg)
    cfg.custom_hooks.append(dict(type='ResumeHook'))
    _, second = run(cfg, started / 'iter_7.pth')
    assert second.rates == pytest.approx({key: whole[key] for key in range(7, 15)}, rel=1e-9)
    assert second.places[7] == (1, 2)


def test_nothing_is_said_where_nothing_differs(started, say):
    run(config(started), started / 'iter_7.pth')
    assert say() == []


def test_second_resumption_compares_with_the_first(tmp_path, started, say):
    changes = dict(optim_wrapper__optimizer__lr=0.02)
    whole = rates_of(config(tmp_path / 'whole', **changes))
    run(config(tmp_path, **changes), started / 'iter_7.pth', stop_after=9)
    say()
    _, third = run(config(tmp_path, **changes), tmp_path / 'iter_9.pth')
    assert say() == []
    assert third.rates == pytest.approx({key: whole[key] for key in range(9, 15)}, rel=1e-9)


def test_shares_of_an_epoch_are_kept(tmp_path, started):
    _, second = run(config(tmp_path, train_dataloader__batch_size=1), started / 'iter_7.pth')
    # 1.4 epochs of 5 are 14 of 10.
    assert min(second.places) == 14
    assert second.places[14] == (1, 4)


def test_iterations_go_on_after_the_same_samples(tmp_path, say):
    run(config(tmp_path, 12), stop_after=8)
    say()
    cfg = config(tmp_path, 12, train_dataloader__batch_size=4)
    _, second = run(cfg, tmp_path / 'iter_8.pth')
    assert min(second.places) == 8
    assert say()[0].startswith('resumed with another batch size per process: 2 -> 4')


def test_several_groups(tmp_path, started):
    """mmengine has one more then, for the base."""
    start = config(tmp_path, optim_wrapper__paramwise_cfg=dict(norm_decay_mult=0.0))
    run(start, stop_after=7)
    changes = dict(optim_wrapper__optimizer__lr=0.02, optim_wrapper__optimizer__weight_decay=0.1)
    later = config(tmp_path, optim_wrapper__paramwise_cfg=dict(norm_decay_mult=0.5), **changes)
    whole, witness = run(later)
    runner, second = run(later, tmp_path / 'iter_7.pth')
    assert second.rates == pytest.approx({key: witness.rates[key] for key in range(7, 15)}, rel=1e-9)
    for name in ('lr', 'initial_lr', 'weight_decay'):
        expected = [group[name] for group in whole.optim_wrapper.param_groups]
        assert [group[name] for group in runner.optim_wrapper.param_groups] == pytest.approx(expected, rel=1e-9), name


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(train_cfg__max_epochs=1), 'the checkpoint is of 1.4 epochs, train_cfg.max_epochs is 1: raise it'),
        (dict(iterations=15), 'counts epochs, train_cfg counts iterations'),
        (
            dict(optim_wrapper__optimizer=dict(type='SGD', lr=0.1, _delete_=True)),
            'is SGD, that of the checkpoint AdamW',
        ),
        (
            dict(optim_wrapper__paramwise_cfg=dict(norm_decay_mult=0.0)),
            'groups of parameters, that of the checkpoint 1',
        ),
    ],
)
def test_what_cannot_be_reconciled_is_an_error(tmp_path, started, changes, message):
    with pytest.raises(UserError, match=message) as error:
        run(config(tmp_path, **changes), started / 'iter_7.pth')
    assert 'load_from' in str(error.value)


def test_finished_training_says_so(tmp_path, say):
    run(config(tmp_path))
    say()
    _, second = run(config(tmp_path), tmp_path / 'epoch_3.pth')
    assert not second.losses
    assert say() == ['The checkpoint is of 3 epochs, as many as train_cfg asks for: the training is done.']


@pytest.mark.parametrize('changes', [{}, dict(optim_wrapper__optimizer__lr=0.02), dict(train_dataloader__batch_size=5)])
def test_checkpoint_without_settings(tmp_path, say, changes):
    run(config(tmp_path), stop_after=6, save=False)
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    del checkpoint['meta']['run']
    torch.save(checkpoint, tmp_path / 'old.pth')
    cfg = config(tmp_path, **changes)
    whole = rates_of(cfg)
    say()
    _, second = run(cfg, tmp_path / 'old.pth')
    told = say()
    assert told[0].startswith('The checkpoint lacks the settings of its run')
    names = dict(optim_wrapper__optimizer__lr='learning rate', train_dataloader__batch_size='length of an epoch')
    changed = [line for line in told if line.startswith('resumed')]
    assert len(changed) == len(changes)
    for key in changes:
        assert changed[0].startswith(f'resumed with another {names[key]}: ')
    assert second.rates == pytest.approx({key: whole[key] for key in second.rates}, rel=1e-9)
    assert len(second.rates) == len(whole) * 2 / 3


def test_text_in_a_checkpoint_is_not_run(tmp_path):
    run(config(tmp_path), stop_after=7)
    checkpoint = torch.load(tmp_path / 'iter_7.pth', weights_only=False)
    checkpoint['meta']['config'] = f'import pathlib\npathlib.Path({str(tmp_path / "proof")!r}).touch()\n'
    torch.save(checkpoint, tmp_path / 'iter_7.pth')
    run(config(tmp_path), tmp_path / 'iter_7.pth')
    assert not (tmp_path / 'proof').exists()


def test_metric_keeps_its_say(tmp_path):
    """Rates lowered by a plateau are lowered from today's start."""
    plateau = dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', patience=0, by_epoch=True)
    pipeline = [dict(type='CenterCrop', crop_size=16), dict(type='PackInputs')]
    changes = dict(
        param_scheduler=[plateau],
        val_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='TinyImages', count=2, pipeline=pipeline),
        ),
        # It never rises.
        val_evaluator=dict(type='Accuracy', topk=1, thrs=2.0),
        val_cfg={},
    )
    _, whole = run(config(tmp_path, **changes), stop_after=12)
    assert whole.rates[0] > whole.rates[11]
    _, second = run(config(tmp_path, **changes, optim_wrapper__optimizer__lr=0.1), tmp_path / 'iter_12.pth')
    assert second.rates[12] == pytest.approx(10 * whole.rates[11])


@MODELS.register_module(force=True)
class TwoParts(BaseModel):
    """Two layers with an optimizer each, of which the second steps every third batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        """Not used."""

    def train_step(self, data, optim_wrapper) -> dict:
        """A step of each."""
        inputs = torch.stack(tuple(data['inputs'])).float().mean((-2, -1)) / 255
        loss = self.second(torch.dropout(self.first(inputs), 0.5, True)).square().mean()
        for name, wrapper in optim_wrapper.items():
            parameters = list(self.get_submodule(name).parameters())
            wrapper.backward(wrapper.scale_loss(loss), retain_graph=True, inputs=parameters)
        for wrapper in optim_wrapper.values():
            if wrapper.should_update():
                wrapper.step()
                wrapper.zero_grad()
        return dict(loss=loss)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class TwoOptimizers:
    """Builds them."""

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        self.rate = optim_wrapper_cfg.optimizer.lr

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """The wrappers of a model."""
        first = torch.optim.Adam(model.first.parameters(), lr=self.rate)
        second = torch.optim.SGD(model.second.parameters(), lr=self.rate, momentum=0.9)
        return OptimWrapperDict(first=OptimWrapper(first), second=OptimWrapper(second, accumulative_counts=3))


def two_parts(folder: Path, **changes):
    """The config of a run with two optimizers."""
    cfg = config(folder, **changes)
    cfg.model = dict(type='TwoParts')
    cfg.optim_wrapper.constructor = 'TwoOptimizers'
    return cfg


@pytest.mark.parametrize('stop', [6, 7])
def test_two_optimizers(tmp_path, say, stop):
    whole, witness = run(two_parts(tmp_path / 'whole'))
    final = weights(whole)
    _, first = run(two_parts(tmp_path), stop_after=stop)
    runner, second = run(two_parts(tmp_path), tmp_path / f'iter_{stop}.pth')
    assert first.losses | second.losses == witness.losses
    assert all(torch.equal(value, final[name]) for name, value in runner.model.state_dict().items())
    say()
    runner, _ = run(two_parts(tmp_path, optim_wrapper__optimizer__lr=0.02), tmp_path / f'iter_{stop}.pth')
    assert say()[0].startswith('resumed with another learning rate: 0.01 -> 0.02')
    assert runner.optim_wrapper['second'].param_groups[0]['initial_lr'] == 0.02
