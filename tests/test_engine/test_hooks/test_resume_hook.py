import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from tiny_run import config, run, weights
from torch.utils.data import ConcatDataset, DataLoader, Subset

from mmmap.engine.keyed_random import make_reproducible


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """Losses, rates, places and final weights of the run in epochs and of that in iterations."""
    runs = {}
    for iterations in (None, 15):
        runner, witness = run(config(tmp_path_factory.mktemp('uninterrupted'), iterations))
        runs[iterations] = witness, weights(runner)
    return runs


def check_same(whole, parts, runner) -> None:
    """The parts of a run are the whole, to the last bit."""
    witness, final = whole
    for name in ('losses', 'rates', 'places'):
        assert parts[0].__dict__[name] | parts[1].__dict__[name] == witness.__dict__[name], name
    assert not parts[0].losses.keys() & parts[1].losses.keys()
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, final[name]), name


@pytest.mark.parametrize(
    ('iterations', 'stop', 'workers', 'persistent', 'workers_after'),
    [
        (None, 7, 0, False, 2),
        (None, 10, 2, True, 0),
        (None, 4, 2, False, 0),
        (15, 7, 0, False, 2),
        (15, 1, 2, True, 0),
    ],
)
def test_goes_on_as_if_it_had_never_stopped(
    tmp_path, uninterrupted, iterations, stop, workers, persistent, workers_after
):
    _, first = run(config(tmp_path, iterations, workers, persistent), stop_after=stop)
    runner, second = run(config(tmp_path, iterations, workers_after), tmp_path / f'iter_{stop}.pth')
    check_same(uninterrupted[iterations], (first, second), runner)


def test_kill_goes_on_from_the_end_of_an_epoch(tmp_path, uninterrupted):
    _, first = run(config(tmp_path), stop_after=8, save=False)
    runner, second = run(config(tmp_path), tmp_path / 'epoch_1.pth')
    first.losses = {key: value for key, value in first.losses.items() if key < 5}
    check_same(uninterrupted[None], (first, second), runner)


def test_ends_an_epoch_whose_batches_are_all_done(tmp_path, uninterrupted):
    _, first = run(config(tmp_path), stop_after=10)
    assert not (tmp_path / 'epoch_2.pth').exists()
    runner, second = run(config(tmp_path), tmp_path / 'iter_10.pth')
    assert (tmp_path / 'epoch_2.pth').exists()
    check_same(uninterrupted[None], (first, second), runner)


def test_iterations_over_a_sampler_that_ends(tmp_path):
    """mmengine starts such a loader anew for every pass."""
    changes = dict(train_dataloader__sampler__type='DefaultSampler')
    whole, witness = run(config(tmp_path / 'whole', 12, **changes))
    _, first = run(config(tmp_path, 12, **changes), stop_after=7)
    runner, second = run(config(tmp_path, 12, **changes), tmp_path / 'iter_7.pth')
    check_same((witness, weights(whole)), (first, second), runner)


@pytest.mark.parametrize('stop', [5, 7])
def test_gradients_that_wait_for_a_step(tmp_path, stop):
    changes = dict(optim_wrapper__accumulative_counts=3)
    whole, witness = run(config(tmp_path / 'whole', **changes))
    _, first = run(config(tmp_path, **changes), stop_after=stop)
    runner, second = run(config(tmp_path, **changes), tmp_path / f'iter_{stop}.pth')
    check_same((witness, weights(whole)), (first, second), runner)


def test_drawn_seed_is_kept(tmp_path):
    _, first = run(config(tmp_path, randomness__seed=None), stop_after=7)
    runner, second = run(config(tmp_path, randomness__seed=None), tmp_path / 'iter_7.pth')
    whole, witness = run(config(tmp_path / 'whole', randomness__seed=runner.seed))
    check_same((witness, weights(whole)), (first, second), runner)


def validation(count: int = 4) -> dict:
    """Settings for an evaluation after each epoch."""
    pipeline = [dict(type='RandomResizedCrop', scale=16), dict(type='PackInputs')]
    return dict(
        val_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='default_collate'),
            dataset=dict(type='TinyImages', count=count, pipeline=pipeline),
        ),
        val_evaluator=dict(type='Accuracy', topk=1),
        val_cfg={},
    )


def test_evaluation_that_was_due_comes_first(tmp_path):
    plateau = dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', patience=0, by_epoch=True)
    changes = dict(param_scheduler=[plateau], **validation())
    whole, witness = run(config(tmp_path / 'whole', **changes))
    # The checkpoint of an epoch's end is written before the evaluation, which the rates depend on.
    _, first = run(config(tmp_path, **changes), stop_after=8, save=False)
    runner, second = run(config(tmp_path, **changes), tmp_path / 'epoch_1.pth')
    first.losses = {key: value for key, value in first.losses.items() if key < 5}
    check_same((witness, weights(whole)), (first, second), runner)
    assert second.evaluated == witness.evaluated
    # The one that was made is not made again.
    run(config(tmp_path / 'mid', **changes), stop_after=7)
    _, third = run(config(tmp_path / 'mid', **changes), tmp_path / 'mid' / 'iter_7.pth')
    assert sorted(third.evaluated) == [10, 15]


def test_early_stop_comes_when_it_would_have_come(tmp_path):
    stop = dict(type='EarlyStoppingHook', monitor='accuracy/top1', patience=2, min_delta=1000)
    changes = dict(custom_hooks=[dict(type='Witness'), stop], train_cfg__max_epochs=5, **validation())
    whole, witness = run(config(tmp_path / 'whole', **changes))
    assert len(witness.losses) == 15
    # In an epoch, and by a kill after its end and before its evaluation.
    _, first = run(config(tmp_path, **changes), stop_after=12)
    runner, second = run(config(tmp_path, **changes), tmp_path / 'iter_12.pth')
    check_same((witness, weights(whole)), (first, second), runner)
    _, third = run(config(tmp_path, **changes), tmp_path / 'epoch_3.pth')
    assert not third.losses


CYCLE = dict(type='OneCycleLR', eta_max=0.01, total_steps=15, by_epoch=False)
MOMENTUM = dict(type='CosineAnnealingMomentum', eta_min=0.8, T_max=15, by_epoch=False)


@pytest.mark.parametrize(
    'schedulers',
    [
        [CYCLE],
        [dict(CYCLE, anneal_strategy='linear', three_phase=True), MOMENTUM],
        [dict(type='CosineRestartLR', periods=[5, 10], restart_weights=[1, 0.5], eta_min=0, by_epoch=False)],
        [dict(type='MultiStepLR', milestones=[1, 2])],
    ],
    ids=['cycle', 'linear cycle', 'restarts', 'steps'],
)
def test_schedules_of_every_kind(tmp_path, schedulers):
    whole, witness = run(config(tmp_path / 'whole', param_scheduler=schedulers))
    _, first = run(config(tmp_path, param_scheduler=schedulers), stop_after=7)
    runner, second = run(config(tmp_path, param_scheduler=schedulers), tmp_path / 'iter_7.pth')
    check_same((witness, weights(whole)), (first, second), runner)


def test_evaluation_does_not_depend_on_workers(tmp_path):
    results = []
    for workers in (0, 2):
        cfg = config(tmp_path, **validation())
        cfg.val_dataloader.num_workers = workers
        cfg.val_dataloader.persistent_workers = workers > 0
        cfg.val_evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / f'{workers}.pkl'))
        runner = Runner.from_cfg(cfg.copy())
        seen = []
        for _ in range(2):
            runner.val_loop.evaluator.process = lambda data_batch, data_samples, seen=seen: seen.append(
                data_batch['inputs']
            )
            runner.val_loop.evaluator.evaluate = lambda size: {}
            runner.val()
        results.append(seen)
    first, second = results
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(first[0], first[2])


class Draws(torch.utils.data.Dataset):
    """Samples that are what three generators draw."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple:
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def epochs_of(dataset, workers: int, count: int = 2, **options) -> list:
    """What a loader gives in some epochs."""
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, **options)
    batches = make_reproducible(loader, seed=3)
    result = []
    for batches.epoch in range(count):
        result.append([[column.tolist() for column in batch] for batch in loader])
    return result


def test_samples_depend_on_their_place_alone():
    expected = epochs_of(Draws(), 0, shuffle=True)
    assert epochs_of(Draws(), 2, shuffle=True) == expected
    assert epochs_of(Draws(), 1, shuffle=True, persistent_workers=True) == expected
    # What a worker gets that is not forked.
    loader = DataLoader(Draws(), batch_size=2, shuffle=True)
    batches = make_reproducible(loader, seed=3)
    copy, first = pickle.loads(pickle.dumps((loader.dataset, next(iter(batches)))))
    assert [list(column) for column in zip(*copy.__getitems__(first), strict=True)] == expected[0][0]
    drawn = [value for epoch in expected for batch in epoch for column in batch[1:] for value in column]
    assert len(set(drawn)) == len(drawn) == 36


def test_loading_in_the_main_process_leaves_its_generators_alone():
    def draw_after(load: bool) -> list:
        torch.manual_seed(1)
        np.random.seed(1)
        loader = DataLoader(Draws(), batch_size=2)
        make_reproducible(loader, seed=3)
        iterator = iter(loader)
        if load:
            next(iterator)
        return [torch.rand(()).item(), np.random.rand()]

    assert draw_after(load=True) == draw_after(load=False)


def test_batches_left_out_are_not_loaded():
    loaded = []

    class Counted(Draws):
        def __getitem__(self, index: int) -> tuple:
            loaded.append(index)
            return super().__getitem__(index)

    loader = DataLoader(Counted(), batch_size=2)
    batches = make_reproducible(loader, seed=3)
    whole = [batch[1].tolist() for batch in loader]
    loaded.clear()
    batches.start = 2
    assert [batch[1].tolist() for batch in loader] == whole[2:]
    assert loaded == [4, 5]


class OwnItems(Draws):
    """Loads whole batches by itself."""

    def __getitems__(self, indices: list) -> list:
        return [(len(indices), index, np.random.rand()) for index in indices]


def test_whole_batches_stay_the_data_sets_own():
    first = epochs_of(OwnItems(), 0)
    assert first[0][0][0] == [2, 2]
    assert first == epochs_of(OwnItems(), 2)


@pytest.mark.parametrize(
    'build',
    [lambda: Subset(Draws(), [5, 1, 3, 0]), lambda: ConcatDataset([Draws(), Draws()])],
    ids=['subset', 'concat'],
)
def test_wrapped_data_sets(build):
    expected = epochs_of(build(), 0)
    assert expected[0] != expected[1]
    assert epochs_of(build(), 2) == expected
