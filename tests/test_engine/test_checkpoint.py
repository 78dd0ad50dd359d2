import os
import time

import pytest
import torch
from mmengine.fileio import get_file_backend

from mmmap.engine.checkpoint import AtomicLocalBackend, check_checkpoint_file, find_whole_checkpoint, is_whole
from mmmap.engine.errors import UserError


def _save(path, age=0.0, keep=1.0):
    torch.save({'state_dict': {'weight': torch.zeros(1000)}, 'optimizer': {}}, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    os.utime(path, (time.time() - age,) * 2)
    return str(path)


def test_backend_leaves_the_old_file_when_writing_stops(tmp_path, monkeypatch):
    backend = get_file_backend(backend_args={'backend': 'mmmap_atomic'})
    assert isinstance(backend, AtomicLocalBackend)
    target = tmp_path / 'new_folder' / 'epoch_1.pth'
    backend.put(b'old', target)

    def stop(*args):
        raise KeyboardInterrupt

    # Stopped before the bytes are down, and before the rename.
    for function in ('fsync', 'replace'):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, function, stop)
            backend.put(b'new', target)
        assert target.read_bytes() == b'old'
    backend.put_text('née', target)
    assert target.read_text(encoding='utf-8') == 'née'
    assert [path.name for path in target.parent.iterdir()] == ['epoch_1.pth']


@pytest.mark.parametrize('keep', [0.0, 0.3, 0.99])
def test_cut_files_are_not_whole(tmp_path, keep):
    assert is_whole(_save(tmp_path / 'whole.pth'))
    assert not is_whole(_save(tmp_path / 'cut.pth', keep=keep))
    assert not is_whole(tmp_path / 'missing.pth')


def test_the_named_checkpoint_is_found(tmp_path):
    named = _save(tmp_path / 'epoch_1.pth', age=100)
    _save(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(named)
    assert find_whole_checkpoint(tmp_path) == (named, [f'Resuming from {named}.'])


@pytest.mark.parametrize('pointer', ['epoch_3.pth', 'epoch_9.pth', '', None])
def test_fall_back_to_the_newest_whole_checkpoint(tmp_path, pointer):
    _save(tmp_path / 'epoch_1.pth', age=30)
    whole = _save(tmp_path / 'epoch_2.pth', age=20)
    cut = _save(tmp_path / 'epoch_3.pth', age=10, keep=0.5)
    _save(tmp_path / 'best_accuracy_epoch_2.pth')
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / pointer) if pointer else '')
    path, messages = find_whole_checkpoint(tmp_path)
    assert path == whole
    assert any(cut in message and 'cut off' in message for message in messages)
    assert messages[-1] == f'Resuming from {whole}.'
    if pointer == 'epoch_9.pth':
        assert 'does not exist' in messages[0]


def test_nothing_to_resume_is_said(tmp_path):
    path, messages = find_whole_checkpoint(tmp_path / 'no_such_folder')
    assert path is None
    assert 'no_such_folder' in messages[0] and 'starts from the beginning' in messages[0]


def test_named_checkpoint_must_be_there_and_whole(tmp_path):
    check_checkpoint_file(_save(tmp_path / 'whole.pth'))
    check_checkpoint_file('https://host/not_looked_at.pth')
    torch.save({'a': 1}, tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    check_checkpoint_file(str(tmp_path / 'legacy.pth'))
    with pytest.raises(UserError, match=r'checkpoint not found: .*missing\.pth'):
        check_checkpoint_file(str(tmp_path / 'missing.pth'))
    for keep in (0.0, 0.6):
        with pytest.raises(UserError, match=r'cut off: .*cut\.pth'):
            check_checkpoint_file(_save(tmp_path / 'cut.pth', keep=keep))
