"""FSDP in two gloo processes: checkpoints that are folders, or files."""

import pytest
from two_gloo_processes import run_in_two_processes

from mmmap.engine.checkpoint_files import damage_of


@pytest.mark.parametrize('kind', ['local', 'full'])
def test_checkpoints_are_written_retired_and_resumed_from(tmp_path, kind):
    run = tmp_path / 'run'
    output = run_in_two_processes('fsdp_worker.py', run, kind)
    assert output.count(f'Resuming from {run / "epoch_3.pth"}. ended at epoch 5, iteration 10') == 2
    assert sorted(path.name for path in run.glob('*.pth*')) == ['epoch_4.pth', 'epoch_5.pth']
    for checkpoint in run.glob('*.pth'):
        assert damage_of(checkpoint) is None
        if kind == 'local':
            assert sorted(path.name for path in checkpoint.iterdir()) == ['rank0.pth', 'rank1.pth']
