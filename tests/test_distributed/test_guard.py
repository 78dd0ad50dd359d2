"""The guard on two gloo processes, under DDP and FSDP: both decide alike."""

from pathlib import Path

import pytest
import torch
from two_gloo_processes import run_in_two_processes


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory) -> list[dict]:
    """What each of two processes under torchrun saw."""
    folder = tmp_path_factory.mktemp('guard')
    run_in_two_processes('guard_worker.py', folder)
    return torch.load(folder / 'result.pth')


@pytest.mark.parametrize(('case', 'skipped'), [('loss', 2), ('constant', 2), ('gradient', 1), ('fsdp', 3)])
def test_what_one_process_finds_skips_the_step_of_both(two_processes, case, skipped):
    expected = ([iteration != skipped for iteration in range(6)], 'finished')
    assert [found[case] for found in two_processes] == [expected, expected]


def test_both_stop_at_once_and_name_the_process_and_its_files(two_processes):
    (first, line), second = two_processes[0]['stop'], two_processes[1]['stop']
    assert second == (first, line)
    assert first == [True, True, False, False]
    assert line.startswith('training stopped at iteration 4: 2 steps in a row were skipped, not finite: loss=nan')
    assert 'on rank 1, files: img_1.png, img_3.png; the batch is in' in line
    assert Path(line.split('the batch is in ')[1].split(';')[0]).name == 'non_finite_iter_4_rank_1.pt'
