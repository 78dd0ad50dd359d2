import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from mmmap.engine.checkpoint_files import AtomicLocalBackend, find_whole_checkpoint
from mmmap.engine.preemption import Preempted


class _Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, inputs, mode='tensor'):
        return {'loss': self.layer(inputs).square().mean()} if mode == 'loss' else [self.layer(inputs)]


class _Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return {'count': len(results)}


class _Signal(Hook):
    """Sends a signal to the process in a given stage, when the runner has done so many iterations."""

    def __init__(self, stage, done, number=signal.SIGTERM):
        self.stage, self.done, self.number = stage, done, number
        setattr(self, stage, self._send)
        self.weights = None

    def _send(self, runner, **kwargs):
        if runner.iter == self.done:
            os.kill(os.getpid(), self.number)

    def before_val(self, runner):
        self.weights = {name: value.clone() for name, value in runner.model.state_dict().items()}


def _loader(count):
    return dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=[{'inputs': torch.tensor([1.0, index])} for index in range(count)],
        collate_fn=dict(type='default_collate'),
    )


def _runner(work_dir, *hooks, resume=False, by_epoch=True, interval=1, accumulate=1, ema=False):
    """Three epochs of four iterations, or twelve of them with a validation every three; two batches to validate."""
    _runner.count += 1
    load_from = find_whole_checkpoint(work_dir)[0] if resume else None
    runner = Runner(
        _Linear(),
        work_dir=str(work_dir),
        train_dataloader=_loader(4),
        train_cfg=dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=12, val_interval=3),
        val_dataloader=_loader(2),
        val_cfg={},
        val_evaluator=[_Count()],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9), accumulative_counts=accumulate),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook', interval=interval, by_epoch=by_epoch, max_keep_ckpts=2),
            preemption=dict(type='PreemptionHook'),
        ),
        custom_hooks=[dict(type='EMAHook', momentum=0.5)] if ema else [],
        default_scope='mmengine',
        experiment_name=f'preemption_{_runner.count}',
        log_level=logging.ERROR,
        load_from=load_from,
        resume=load_from is not None,
    )
    for hook in hooks:
        runner.register_hook(hook, 'LOW')
    return runner


_runner.count = 0


def _stop(work_dir, stage, done, **options):
    """Run until the signal; the runner, the hook that sent it and the checkpoint to go on from."""
    before = signal.getsignal(signal.SIGTERM)
    hook = _Signal(stage, done)
    runner = _runner(work_dir, hook, **options)
    with pytest.raises(Preempted) as end:
        runner.train()
    assert end.value.code == 75
    # A program that goes on, such as this one, has its signals back.
    assert signal.getsignal(signal.SIGTERM) is before
    path = find_whole_checkpoint(work_dir)[0]
    return runner, hook, path and torch.load(path, weights_only=False) | {'path': path}


@pytest.mark.parametrize('stage', ['before_train_iter', 'after_train_iter'])
def test_saves_the_iteration_in_progress(tmp_path, stage):
    runner, _, saved = _stop(tmp_path, stage, done=5)
    assert saved['path'] == str(tmp_path / 'iter_6.pth')
    assert {name: saved['meta'][name] for name in ('epoch', 'iter')} == {'epoch': 1, 'iter': 6}
    assert all(torch.equal(value, saved['state_dict'][name]) for name, value in runner.model.state_dict().items())
    assert saved['optimizer']['state']


def test_a_resumed_run_goes_on_there_and_retires_the_checkpoint(tmp_path):
    _stop(tmp_path, 'after_train_iter', done=5)
    _, _, saved = _stop(tmp_path, 'after_train_iter', done=6, resume=True)
    # The second stop has its own.
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_1.pth', 'iter_7.pth']
    assert saved['meta']['iter'] == 7
    runner = _runner(tmp_path, resume=True)
    runner.train()
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == ['epoch_2.pth', 'epoch_3.pth']


@pytest.mark.parametrize('by_epoch', [True, False])
def test_the_last_checkpoint_of_a_run_retires_it_too(tmp_path, by_epoch):
    _stop(tmp_path, 'after_train_iter', done=9, by_epoch=by_epoch, interval=100)
    _runner(tmp_path, resume=True, by_epoch=by_epoch, interval=100).train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_3.pth' if by_epoch else 'iter_12.pth']


def test_waits_for_the_step_of_accumulated_gradients(tmp_path):
    assert _stop(tmp_path, 'after_train_iter', done=4, accumulate=3)[2]['meta']['iter'] == 6


def test_a_signal_while_a_checkpoint_is_written_needs_no_second_one(tmp_path):
    _, _, saved = _stop(tmp_path, 'before_save_checkpoint', done=4)
    assert saved['path'] == str(tmp_path / 'epoch_1.pth') and saved['meta']['epoch'] == 1


@pytest.mark.parametrize('ema', [False, True])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_stops_a_validation(tmp_path, by_epoch, ema):
    # No other checkpoint of that iteration.
    done = 4 if by_epoch else 6
    _, hook, saved = _stop(tmp_path, 'after_val_iter', done=done, by_epoch=by_epoch, ema=ema, interval=100)
    assert saved['path'] == str(tmp_path / f'iter_{done}.pth')
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (1 if by_epoch else 0, done)
    # EMAHook stores the trained weights beside its averages, which are in the model during a validation.
    trained = {f'module.{name}': value for name, value in hook.weights.items()} if ema else hook.weights
    stored = saved['ema_state_dict' if ema else 'state_dict']
    assert all(torch.equal(value, stored[name]) for name, value in trained.items())
    if ema:
        assert any(not torch.equal(value, saved['state_dict'][name]) for name, value in hook.weights.items())


def test_other_weights_in_a_validation_are_never_saved(tmp_path):
    class Swap(Hook):
        def before_val_epoch(self, runner):
            for parameter in runner.model.parameters():
                parameter.data += 1

        def after_val_epoch(self, runner, metrics=None):
            for parameter in runner.model.parameters():
                parameter.data -= 1

    runner = _runner(tmp_path, _Signal('after_val_iter', 4), Swap(), interval=100)
    with pytest.raises(Preempted):
        runner.train()
    # It went on to the next iteration of the training.
    assert find_whole_checkpoint(tmp_path)[0] == str(tmp_path / 'iter_5.pth')


def test_nothing_to_save_before_the_first_iteration(tmp_path):
    class Measure(Hook):
        def before_train(self, runner):
            runner.val_loop.run()

    hook = _Signal('after_val_iter', 0)
    runner = _runner(tmp_path, hook)
    runner.register_hook(Measure(), 'LOWEST')
    with pytest.raises(Preempted):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


def test_is_written_whole_beside_the_checkpoints_of_mmengine(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(AtomicLocalBackend, 'put', lambda self, obj, filepath: written.append(Path(filepath).name))
    runner = _runner(tmp_path, _Signal('after_train_iter', 1))
    runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, CheckpointHook)]
    runner.register_hook(CheckpointHook(interval=1))
    with pytest.raises(Preempted):
        runner.train()
    assert written == ['iter_2.pth', 'last_checkpoint']


def test_writes_where_the_checkpoint_hook_writes(tmp_path):
    hook = _Signal('after_train_iter', 1)
    runner = _runner(tmp_path / 'run', hook)
    next(one for one in runner.hooks if isinstance(one, CheckpointHook)).out_dir = str(tmp_path / 'elsewhere')
    with pytest.raises(Preempted):
        runner.train()
    assert find_whole_checkpoint(tmp_path / 'run')[0] == str(tmp_path / 'elsewhere' / 'run' / 'iter_2.pth')
