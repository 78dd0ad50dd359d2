import torch.distributed as torch_dist

from mmmap.engine import process_group


def test_leaving_a_group(monkeypatch):
    done = []
    process_group.leave_process_group()  # No group, nothing to leave.
    monkeypatch.setattr(torch_dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch_dist, 'barrier', lambda: done.append('barrier'))
    monkeypatch.setattr(torch_dist, 'destroy_process_group', lambda: done.append('destroy'))
    monkeypatch.setattr(process_group.logging, 'shutdown', lambda: done.append('flush'))
    monkeypatch.setattr(process_group.os, '_exit', lambda status: done.append(status))
    monkeypatch.setattr(torch_dist, 'get_backend', lambda: 'nccl')
    process_group.leave_process_group()
    assert done == ['barrier', 'destroy']
    done.clear()
    monkeypatch.setattr(torch_dist, 'get_backend', lambda: 'gloo')
    process_group.leave_process_group()
    assert done == ['barrier', 'flush', 0]
