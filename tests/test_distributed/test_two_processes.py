"""Two gloo processes against one."""

import gradient_worker
import pytest
import torch
from two_gloo_processes import run_in_two_processes


@pytest.fixture(scope='module')
def two_processes(tmp_path_factory) -> dict:
    """What two processes under torchrun saved."""
    result = tmp_path_factory.mktemp('distributed') / 'result.pth'
    run_in_two_processes('gradient_worker.py', result)
    return torch.load(result)


def test_gradients_are_those_of_one_process(two_processes):
    images, masks = gradient_worker.batch()
    single = gradient_worker.train(gradient_worker.build(gradient_worker.GivenMasking(masks)), images)
    assert two_processes['world'] == 2
    assert set(two_processes['gradients']) == set(single)
    for name, expected in single.items():
        error = (two_processes['gradients'][name] - expected).abs().max() / expected.abs().max()
        assert error <= 1e-5, f'{name}: {error:.1e}'


def test_half_of_the_batch_would_give_others():
    images, masks = gradient_worker.batch()
    whole = gradient_worker.train(gradient_worker.build(gradient_worker.GivenMasking(masks)), images)
    half = gradient_worker.train(gradient_worker.build(gradient_worker.GivenMasking(masks[:2])), images[:2])
    assert min((half[name] - whole[name]).abs().max() / whole[name].abs().max() for name in whole) > 1e-3


def test_processes_share_the_ratio_and_not_the_masks(two_processes):
    first, second = two_processes['drawn']
    assert torch.equal(first.sum(2), second.sum(2))
    for step in range(3):
        assert not torch.equal(first[step], second[step])
    assert len(first.sum(2).unique()) > 1
