"""The guard in small runs of mmengine's Runner: what a bad step leaves alone, what is said, and when a run stops."""

import itertools
import sys
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from torch import nn
from torch.optim import Optimizer

from mmmap.engine import step_guard
from mmmap.engine.checkpoint_files import find_whole_checkpoint
from mmmap.engine.hooks import NonFiniteGuardHook
from mmmap.engine.hooks.non_finite_guard_hook import _keeps_averages
from mmmap.utils.errors import UserError
from mmmap.utils.safe_load import load_checkpoint

sys.path.insert(0, str(Path(__file__).parents[2]))

from guard_runs import BadGradient, Net, make_runner, same, state_of, whole

NAN, INF = float('nan'), float('inf')


class Lars(Optimizer):
    """An optimizer of one's own, which knows nothing of flags; a NaN would stay in its momentum."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, dict(lr=lr))

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group['params']:
                if param.grad is not None:
                    ratio = param.norm() / (param.grad.norm() + 1e-6)
                    momentum = self.state[param].setdefault('momentum', torch.zeros_like(param))
                    param.sub_(momentum.mul_(0.9).add_(param.grad * ratio), alpha=group['lr'] * 0.1)


OPTIMIZERS = {
    'fused AdamW': dict(type='AdamW', lr=0.01, fused=True),
    'AdamW': dict(type='AdamW', lr=0.01),
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9),
    'fused SGD': dict(type='SGD', lr=0.1, momentum=0.9, fused=True),
    'LARS': dict(type=Lars),
}
CLIPS = {'unclipped': None, 'by norm': dict(max_norm=1.0), 'by value': dict(type='value', clip_value=0.5)}


@pytest.fixture
def messages(monkeypatch):
    """What the runs log."""
    from mmengine.logging import MMLogger

    found = []
    handle = MMLogger.callHandlers
    monkeypatch.setattr(
        MMLogger, 'callHandlers', lambda self, record: (found.append(record.getMessage()), handle(self, record))
    )
    return found


@pytest.fixture
def as_on_gpu(monkeypatch):
    """Let the steps be decided by a flag, as on a GPU, and never by the host but in the first one."""
    monkeypatch.setattr(step_guard, '_device_type', lambda tensors: 'cuda')


def run(folder, model, hooks=(), gradients=None, **changes):
    """The states before the training and after each iteration; the runner."""
    watch = BadGradient(gradients)
    runner = make_runner(folder, model, hooks=[*hooks, watch], **changes)
    runner.train()
    return watch.states, runner


def changes_of(states):
    return [len(same(before, after)) > 0 for before, after in itertools.pairwise(states)]


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('fault', ['loss', 'gradient'])
def test_a_bad_step_changes_nothing_and_the_others_go_on(tmp_path, optimizer, fault, messages):
    model = Net(bad_loss={3: NAN} if fault == 'loss' else {})
    states, runner = run(
        tmp_path,
        model,
        [dict(type='EMAHook')],
        {3: INF} if fault == 'gradient' else None,
        optim_wrapper=dict(optimizer=OPTIMIZERS[optimizer]),
    )
    assert changes_of(states) == [True, True, True, False, True, True]
    assert same(states[3], states[4]) == []
    assert all(value.isfinite().all() for value in states[-1].values())
    (line,) = [message for message in messages if 'step skipped' in message]
    assert line.startswith('Iteration 4: step skipped')
    assert 'on rank 0, files: img_6.png, img_7.png.' in line
    assert ('loss=nan, loss_a=nan' if fault == 'loss' else 'the gradient of body.weight') in line
    assert runner.message_hub.get_scalar('train/skipped_steps').current() == 1


@pytest.mark.parametrize('flagged', [False, True])
def test_a_loss_counts_whatever_its_gradient(tmp_path, flagged, monkeypatch):
    if flagged:
        monkeypatch.setattr(step_guard, '_device_type', lambda tensors: 'cuda')
    wrapper = dict(optimizer=OPTIMIZERS['fused AdamW'])
    states, _ = run(tmp_path, Net(bad_constant={3: INF}), optim_wrapper=wrapper)
    assert changes_of(states) == [True, True, True, False, True, True]


@pytest.mark.parametrize('optimizer', ['fused AdamW', 'fused SGD'])
@pytest.mark.parametrize('clip', CLIPS)
@pytest.mark.parametrize('iteration', [0, 3])
def test_a_flag_on_the_device_does_the_same(tmp_path, as_on_gpu, optimizer, clip, iteration):
    states, _ = run(
        tmp_path,
        Net(),
        [dict(type='EMAHook')],
        {iteration: INF},
        optim_wrapper=dict(optimizer=OPTIMIZERS[optimizer], clip_grad=CLIPS[clip] and dict(CLIPS[clip])),
    )
    assert changes_of(states) == [i != iteration for i in range(6)]
    assert same(states[iteration], states[iteration + 1]) == []


@pytest.mark.parametrize('clip', CLIPS)
@pytest.mark.parametrize('value', [INF, -INF, NAN])
def test_clipping_does_not_hide_a_gradient(tmp_path, clip, value):
    clip_grad = CLIPS[clip] and dict(CLIPS[clip])
    states, _ = run(
        tmp_path,
        Net(),
        gradients={0: value, 3: value},
        optim_wrapper=dict(optimizer=OPTIMIZERS['SGD'], clip_grad=clip_grad),
    )
    assert changes_of(states) == [False, True, True, False, True, True]


@pytest.mark.parametrize('flagged', [False, True])
def test_a_huge_finite_gradient_that_is_clipped_is_not_a_fault(tmp_path, flagged, monkeypatch):
    if flagged:
        monkeypatch.setattr(step_guard, '_device_type', lambda tensors: 'cuda')
    clip = dict(type='value', clip_value=0.5)
    wrapper = dict(optimizer=OPTIMIZERS['fused AdamW'], clip_grad=clip)
    states, _ = run(tmp_path, Net(), gradients={3: 1e30}, optim_wrapper=wrapper)
    assert all(changes_of(states))


@pytest.mark.parametrize('flagged', [False, True])
def test_a_gradient_whose_square_is_infinite_is_a_fault(tmp_path, flagged, monkeypatch):
    if flagged:
        monkeypatch.setattr(step_guard, '_device_type', lambda tensors: 'cuda')
    wrapper = dict(optimizer=OPTIMIZERS['fused AdamW'])
    states, _ = run(tmp_path, Net(), gradients={3: 1e30}, optim_wrapper=wrapper)
    assert changes_of(states) == [True, True, True, False, True, True]
    assert all(value.isfinite().all() for value in states[-1].values())


@pytest.mark.parametrize('counts', [1, 2])
@pytest.mark.parametrize('clip', ['unclipped', 'by norm'])
def test_a_good_run_is_the_run_without_the_guard(tmp_path, counts, clip):
    finals = []
    for name, guard in (('without', None), ('with', {})):
        torch.manual_seed(1)
        wrapper = dict(optimizer=OPTIMIZERS['AdamW'], accumulative_counts=counts, clip_grad=CLIPS[clip])
        wrapper['clip_grad'] = wrapper['clip_grad'] and dict(wrapper['clip_grad'])
        states, _ = run(tmp_path / name, Net(), [dict(type='EMAHook')], guard=guard, epochs=2, optim_wrapper=wrapper)
        finals.append(states[-1])
    assert same(*finals) == []


def test_without_the_guard_one_nan_is_the_end(tmp_path):
    states, _ = run(tmp_path, Net(bad_loss={3: NAN}), guard=None)
    assert not states[-1]['model.body.weight'].isfinite().any()


@pytest.mark.parametrize('update_buffers', [False, True])
@pytest.mark.parametrize('bad', [2, 3])
def test_of_accumulated_gradients_one_bad_loss_skips_the_whole_step(tmp_path, bad, update_buffers):
    states, _ = run(
        tmp_path,
        Net(bad_loss={bad: NAN}),
        [dict(type='EMAHook', update_buffers=update_buffers)],
        optim_wrapper=dict(optimizer=OPTIMIZERS['AdamW'], accumulative_counts=2),
    )
    # Iterations 3 and 4 are one step.
    assert same(states[2], states[4]) == []
    assert same(states[0], states[2]) and same(states[4], states[6])


def test_samples_that_are_not_finite_are_named(tmp_path, messages):
    states, _ = run(tmp_path, Net(), poison=(7,))
    assert same(states[3], states[4]) == []
    (line,) = [message for message in messages if 'step skipped' in message]
    assert 'files: img_7.png (its inputs are not finite).' in line


def test_a_logged_value_may_be_nan(tmp_path, messages):
    class Logs(Net):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs) | dict(accuracy=torch.tensor(NAN))

    states, _ = run(tmp_path, Logs())
    assert all(changes_of(states))
    assert not [message for message in messages if 'skipped' in message]


def test_in_bfloat16_on_a_cpu(tmp_path):
    wrapper = dict(type='CPUAmpOptimWrapper', optimizer=OPTIMIZERS['fused AdamW'])
    states, _ = run(tmp_path, Net(bad_loss={3: INF}), optim_wrapper=wrapper)
    assert changes_of(states) == [True, True, True, False, True, True]


class Momentum(Net):
    """Averages in the model, as of MoCo: one of mmengine, one by hand, and a queue that is replaced."""

    def __init__(self, **changes):
        super().__init__(**changes)
        self.teacher = ExponentialMovingAverage(self.body, momentum=0.1)
        self.by_hand = nn.Linear(4, 8).requires_grad_(False)
        self.register_buffer('queue', torch.zeros(3))
        self.still = nn.Linear(2, 2).requires_grad_(False)

    def features(self, x):
        self.teacher.update_parameters(self.body)
        for mine, theirs in zip(self.by_hand.parameters(), self.body.parameters(), strict=True):
            mine.data.mul_(0.9).add_(theirs.data, alpha=0.1)
        self.queue = self.queue + x.mean() * self.bad_loss.get(self.calls, 1.0)
        return super().features(x)


@pytest.mark.parametrize('flagged', [False, True])
def test_averages_in_the_model_are_as_before(tmp_path, flagged, monkeypatch):
    if flagged:
        monkeypatch.setattr(step_guard, '_device_type', lambda tensors: 'cuda')
    wrapper = dict(optimizer=OPTIMIZERS['fused AdamW'])
    states, _ = run(tmp_path, Momentum(bad_loss={4: NAN}), epochs=2, optim_wrapper=wrapper)
    assert {'model.teacher.steps', 'model.by_hand.weight', 'model.queue'} <= set(same(states[3], states[4]))
    assert same(states[4], states[5]) == []
    assert 'model.queue' in same(states[5], states[6])


def test_averaged_models_are_known_from_the_start(tmp_path):
    states, _ = run(tmp_path, Momentum(bad_loss={1: NAN}))
    assert [name for name in same(states[1], states[2]) if 'by_hand' not in name] == []


def test_tensors_of_the_model_stay_where_they_are(tmp_path):
    model = Net(bad_loss={3: NAN})
    before = {name: value.data_ptr() for name, value in model.state_dict().items()}
    run(tmp_path, model)
    assert {name: value.data_ptr() for name, value in model.state_dict().items()} == before


def test_stops_after_some_in_a_row_with_one_line_and_loses_nothing(tmp_path, messages):
    model = Net(bad_loss=dict.fromkeys([1, *range(7, 100)], NAN))
    watch = BadGradient()
    runner = make_runner(tmp_path, model, dict(max_in_a_row=3), [watch], epochs=3)
    with pytest.raises(UserError) as stop:
        runner.train()
    # Over the end of an epoch: iterations 8 to 10 of epochs of 6; the second one was alone.
    text = str(stop.value)
    assert '\n' not in text
    assert text.startswith('training stopped at iteration 10: 3 steps in a row were skipped, not finite: loss=nan')
    assert 'rank 0, files: img_6.png, img_7.png; the batch is in' in text
    assert len([message for message in messages if 'step skipped' in message]) == 4

    saved, _ = find_whole_checkpoint(tmp_path)
    assert saved == str(tmp_path / 'iter_10.pth')
    assert saved in text
    checkpoint = torch.load(saved, weights_only=False)
    assert (checkpoint['meta']['epoch'], checkpoint['meta']['iter']) == (1, 10)
    assert all(torch.equal(value, watch.states[7][f'model.{name}']) for name, value in checkpoint['state_dict'].items())

    content = torch.load(tmp_path / 'non_finite_iter_10_rank_0.pt', weights_only=True)
    assert (content['iteration'], content['rank']) == (10, 0)
    batch = content['batches'][0]
    assert torch.equal(batch['inputs'][0], runner.train_dataloader.dataset[6]['inputs'])
    assert batch['data_samples'][1]['img_path'] == 'img_7.png'
    assert content['losses']['loss'].isnan()


def test_stops_at_a_share_of_an_epoch(tmp_path):
    model = Net(bad_loss=dict.fromkeys(range(0, 100, 2), NAN))
    runner = make_runner(tmp_path, model, dict(max_in_a_row=2, max_share=0.25), epochs=2)
    with pytest.raises(UserError, match=r'iteration 5: 3 of the 6 steps of an epoch were skipped'):
        runner.train()


def test_a_few_in_each_epoch_are_no_reason_to_stop(tmp_path):
    model = Net(bad_loss=dict.fromkeys(range(0, 100, 3), NAN))
    make_runner(tmp_path, model, dict(max_in_a_row=2, max_share=0.25), epochs=4).train()


def test_a_weight_that_an_update_spoilt_is_not_saved(tmp_path):
    class Spoil(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 6:
                whole(runner).head.weight.data.view(-1)[0] = INF

    runner = make_runner(tmp_path, Net(), dict(max_in_a_row=3), [Spoil()], epochs=3)
    with pytest.raises(UserError) as stop:
        runner.train()
    assert 'the weights themselves are not finite (head.weight)' in str(stop.value)
    assert find_whole_checkpoint(tmp_path)[0] == str(tmp_path / 'epoch_1.pth')


@pytest.mark.parametrize('hook', ['AtomicCheckpointHook', 'CheckpointHook'])
@pytest.mark.parametrize('where', ['weights', 'averages', 'moments', 'buffers'])
def test_no_checkpoint_is_written_over_a_good_one(tmp_path, hook, where):
    class Spoil(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 11:
                model, ema = whole(runner), runner.hooks
                tensors = dict(
                    weights=model.body.weight,
                    averages=next(hook for hook in ema if hasattr(hook, 'ema_model')).ema_model.module.body.weight,
                    moments=runner.optim_wrapper.optimizer.state[model.body.weight]['exp_avg_sq'],
                    buffers=model.norm.running_var,
                )
                tensors[where].data.view(-1)[0] = INF

    model = Net()
    # Infinite on purpose, as masks are.
    model.register_buffer('mask', torch.tensor([0.0, -INF]))
    spoil = Spoil()
    spoil.priority = 'LOW'
    runner = make_runner(
        tmp_path,
        model,
        hooks=[dict(type='EMAHook'), spoil],
        epochs=2,
        optim_wrapper=dict(optimizer=OPTIMIZERS['AdamW']),
        default_hooks=dict(checkpoint=dict(type=hook, interval=1, max_keep_ckpts=2)),
    )
    with pytest.raises(UserError, match=r'checkpoint not written: .* is not finite'):
        runner.train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_1.pth')


def test_what_was_infinite_from_the_start_can_be_loaded_again(tmp_path):
    model = Net()
    model.register_buffer('lowest', torch.tensor(INF))
    make_runner(tmp_path, model, hooks=[dict(type='EMAHook')]).train()
    path = tmp_path / 'epoch_1.pth'
    content = load_checkpoint(path)
    assert content['state_dict']['lowest'] == INF
    content['state_dict']['head.weight'][0] = INF
    torch.save(content, path)
    with pytest.raises(UserError, match=r'head\.weight is not finite'):
        load_checkpoint(path)


def test_the_oldest_checkpoint_stays_beside_a_refused_one(tmp_path):
    class Spoil(Hook):
        priority = 'LOW'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter == 11:
                whole(runner).body.weight.data.view(-1)[0] = INF

    checkpoint = dict(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1))
    with pytest.raises(UserError, match=r'body\.weight is not finite'):
        make_runner(tmp_path, Net(), hooks=[Spoil()], epochs=2, default_hooks=checkpoint).train()
    assert (tmp_path / 'epoch_1.pth').exists()


def test_a_checkpoint_amid_accumulation_is_good(tmp_path):
    class Infects(Net):
        def features(self, x):
            return super().features(x * NAN if self.calls == 2 else x)

    checkpoint = dict(checkpoint=dict(type='AtomicCheckpointHook', by_epoch=False, interval=3))
    runner = make_runner(
        tmp_path,
        Infects(),
        default_hooks=checkpoint,
        optim_wrapper=dict(optimizer=OPTIMIZERS['SGD'], accumulative_counts=2),
    )
    runner.train()
    state = torch.load(tmp_path / 'iter_3.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())


class Two(Net):
    """Two optimizers, as of a GAN."""

    def train_step(self, data, optim_wrapper):
        data = self.data_preprocessor(data, True)
        log = {}
        for name, wrapper in optim_wrapper.items():
            with wrapper.optim_context(self):
                loss = self(**data, mode='loss')['loss_a']
            wrapper.update_params(loss)
            # What the other one would find.
            self.zero_grad()
            log[f'loss_{name}'] = loss
        return log


def test_of_two_optimizers_each_is_guarded(tmp_path):
    model = Two(bad_loss={5: NAN, 6: NAN})
    wrappers = OptimWrapperDict(
        body=OptimWrapper(torch.optim.SGD([*model.body.parameters(), *model.norm.parameters()], 0.1)),
        head=OptimWrapper(torch.optim.SGD(model.head.parameters(), 0.1)),
    )
    states, _ = run(tmp_path, model, optim_wrapper=wrappers, default_hooks=dict(checkpoint=None))
    # Calls 5 and 6 are the head of the third iteration and the body of the fourth.
    third, fourth = same(states[2], states[3]), same(states[3], states[4])
    assert 'model.body.weight' in third and 'model.head.weight' not in third
    assert 'model.body.weight' not in fourth and 'model.head.weight' in fourth
    assert all(value.isfinite().all() for value in states[-1].values())


@pytest.mark.parametrize('flagged', [False, True])
@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('lost', ['gradient', 'loss'])
def test_a_falling_loss_scale_is_no_reason_to_stop_but_a_lost_run_is(
    tmp_path, lost, fused, flagged, messages, monkeypatch
):
    if flagged:
        monkeypatch.setattr(step_guard, '_device_type', lambda tensors: 'cuda')

    class Scaled(OptimWrapper):
        """As mmengine's wrapper for GPUs."""

        def __init__(self, optimizer):
            super().__init__(optimizer)
            self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**3)

        def backward(self, loss):
            self.loss_scaler.scale(loss).backward()
            self._inner_count += 1

        def step(self):
            self.loss_scaler.step(self.optimizer)
            self.loss_scaler.update()

    def scaled(model):
        return Scaled(torch.optim.AdamW(model.parameters(), 0.01, fused=fused))

    model = Net()
    states, runner = run(
        tmp_path / 'falls', model, gradients={0: INF, 3: INF}, guard=dict(max_in_a_row=1), optim_wrapper=scaled(model)
    )
    assert changes_of(states) == [False, True, True, False, True, True]
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2
    assert len([message for message in messages if 'too high for float16' in message]) == 2

    # A gradient that no scale mends, after three halvings down to 1; a loss at once.
    model = Net(bad_loss=dict.fromkeys(range(100), NAN) if lost == 'loss' else {})
    gradients = dict.fromkeys(range(100), INF) if lost == 'gradient' else {}
    watch = BadGradient(gradients)
    runner = make_runner(tmp_path / 'lost', model, dict(max_in_a_row=2), [watch], optim_wrapper=scaled(model))
    with pytest.raises(UserError, match=f'stopped at iteration {2 if lost == "loss" else 4}'):
        runner.train()
    assert not any(changes_of(watch.states))


def test_sparse_and_missing_gradients(tmp_path):
    class Sparse(Net):
        def __init__(self, **changes):
            super().__init__(**changes)
            self.table = nn.Embedding(5, 8, sparse=True)
            self.unused = nn.Linear(2, 2)

        def features(self, x):
            return super().features(x) + self.table(torch.tensor([1, 1])) * self.bad_loss.get(self.calls, 1.0)

    states, _ = run(tmp_path, Sparse(bad_loss={3: INF}), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    assert same(states[3], states[4]) == []
    assert 'model.table.weight' in same(states[4], states[5])


def test_compiled_training_steps(tmp_path):
    wrapper = dict(optimizer=OPTIMIZERS['AdamW'])
    states, _ = run(tmp_path, Net(), gradients={3: NAN}, optim_wrapper=wrapper, cfg=dict(compile=dict(backend='eager')))
    assert changes_of(states) == [True, True, True, False, True, True]


def test_iteration_based(tmp_path):
    states, _ = run(
        tmp_path,
        Net(bad_loss={2: NAN}),
        train_cfg=dict(by_epoch=False, max_iters=5),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2)),
    )
    assert changes_of(states) == [True, True, False, True, True]


def test_of_two_guards_that_of_the_user_counts(tmp_path):
    runner = make_runner(
        tmp_path,
        Net(bad_loss=dict.fromkeys(range(9), NAN)),
        dict(max_in_a_row=2),
        default_hooks=dict(guard=dict(type='NonFiniteGuardHook')),
    )
    with pytest.raises(UserError, match='2 steps in a row'):
        runner.train()


def test_wrappers_that_keep_the_gradients_are_named(tmp_path, messages):
    class ApexOptimWrapper(OptimWrapper):
        """As it is called in mmengine."""

    model = Net()
    runner = make_runner(tmp_path, model, optim_wrapper=ApexOptimWrapper(torch.optim.SGD(model.parameters(), 0.1)))
    runner.train()
    (line,) = [message for message in messages if 'not guarded' in message]
    assert line.startswith('NonFiniteGuardHook: steps are not guarded, as ApexOptimWrapper hides the gradients')
    assert state_of(runner)


@pytest.mark.parametrize(
    'options',
    [dict(max_in_a_row=0), dict(max_in_a_row='3'), dict(max_share=0), dict(max_share=1.5), dict(max_share='')],
)
def test_impossible_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        HOOKS.build(dict(type='NonFiniteGuardHook', **options))


def test_only_hooks_with_averages_wait_for_the_step(tmp_path):
    runner = make_runner(tmp_path, Net(), hooks=[dict(type='EMAHook'), dict(type='ProfilerHook')])
    runner.call_hook('before_run')
    assert [type(hook).__name__ for hook in runner.hooks if _keeps_averages(hook)] == ['EMAHook']
    assert isinstance(runner.hooks[-1], NonFiniteGuardHook)
