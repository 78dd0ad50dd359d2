"""Runs of two gloo processes that go on, in two and in one."""

from pathlib import Path

import pytest
import torch
from tiny_run import config, run
from two_gloo_processes import run_in_two_processes


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """What two processes under torchrun wrote."""
    folder = tmp_path_factory.mktemp('two')
    run_in_two_processes('resume_worker.py', folder)
    return folder


def test_two_processes_go_on_between_two_steps(folder):
    first, second = (torch.load(folder / f'rank{rank}.pth') for rank in (0, 1))
    assert first['same']
    assert second['same']
    assert first['losses'] != second['losses']


def test_one_process_goes_on_from_two(folder, tmp_path):
    # 5 of 9 iterations of two processes are 1 2/3 epochs: 8 1/3 of 15 in one.
    _, whole = run(config(tmp_path))
    _, second = run(config(tmp_path), folder / 'start' / 'iter_5.pth')
    assert second.places == {key: whole.places[key] for key in range(8, 15)}
    assert second.rates == pytest.approx({key: whole.rates[key] for key in range(8, 15)}, rel=1e-6)
