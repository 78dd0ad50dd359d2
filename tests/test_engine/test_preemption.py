import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from mmmap.engine.preemption import MARKER_VARIABLE, Preempted, StopRequest, shield_workers


def _send(number):
    os.kill(os.getpid(), number)
    # The handler runs between two instructions.
    time.sleep(0.01)


@pytest.fixture
def request_of():
    """Makes a request that watches while a given function runs; the signals are as before afterwards."""
    made = []

    def make(function):
        made.append(StopRequest())
        made[-1].watch(within=function.__code__)
        return made[-1]

    # A training of another test that ended with an error may have left its own.
    before = {
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGINT: signal.default_int_handler,
    }
    left = {number: signal.signal(number, handler) for number, handler in before.items()}
    yield make
    for one in made:
        one.release()
    after = {number: signal.signal(number, handler) for number, handler in left.items()}
    assert after == before


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_the_first_signal_is_noted_and_ends_nothing(request_of, number):
    def work():
        _send(number)
        return 'done'

    request = request_of(work)
    assert work() == 'done'
    assert request.signal_name == signal.Signals(number).name


def test_the_second_interrupt_ends_at_once(request_of):
    def work():
        _send(signal.SIGINT)
        _send(signal.SIGTERM)
        _send(signal.SIGINT)

    request = request_of(work)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert request.signal_name == 'SIGINT'


def test_a_signal_outside_of_the_work_is_not_swallowed(request_of):
    request = request_of(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        _send(signal.SIGINT)
    assert request.signal_name is None


def test_what_nohup_ignores_stays_ignored(request_of):
    def work():
        _send(signal.SIGHUP)

    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        request = request_of(work)
        work()
        assert request.signal_name is None
    finally:
        request.release()
        signal.signal(signal.SIGHUP, former)


def test_a_handler_of_the_start_does_not_come_back(request_of):
    def leave(number, frame):
        raise AssertionError

    leave.for_the_start = True
    former = signal.signal(signal.SIGUSR1, leave)
    try:
        request_of(lambda: None).release()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGUSR1, former)


def test_status(tmp_path, monkeypatch):
    monkeypatch.delenv(MARKER_VARIABLE, raising=False)
    assert Preempted().code == 75
    marker = tmp_path / 'marker'
    monkeypatch.setenv(MARKER_VARIABLE, str(marker))
    # torchrun would take 75 for a crash.
    assert Preempted().code == 0 and marker.stat().st_size


class _Worker(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 1:
            # As Ctrl-C and Slurm do; nobody but the main process may end a worker.
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
                os.kill(os.getpid(), number)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
        return torch.tensor([index, torch.initial_seed() == 7])


def test_workers_live_through_signals_to_the_whole_group():
    loader = DataLoader(_Worker(), num_workers=1, worker_init_fn=lambda worker: torch.manual_seed(7))
    shield_workers(loader)
    shield_workers(loader)
    # The init function of before is called.
    assert [batch[0].tolist() for batch in loader] == [[index, 1] for index in range(4)]


class _Hangs(_Worker):
    def __getitem__(self, index):
        if index:
            time.sleep(600)
        return index


def test_the_parent_ends_a_worker_that_hangs():
    loader = DataLoader(_Hangs(), num_workers=1)
    shield_workers(loader)
    iterator = iter(loader)
    next(iterator)
    (worker,) = iterator._workers
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
