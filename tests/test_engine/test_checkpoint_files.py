import errno
import os
import time
from pathlib import Path

import pytest
import torch
from evil_files import evil_checkpoint
from mmengine.fileio import get_file_backend

from mmmap.engine import checkpoint_files
from mmmap.engine.checkpoint_files import (
    AtomicLocalBackend,
    check_checkpoint_file,
    damage_of,
    find_whole_checkpoint,
    remove_left_overs,
    require_same_checkpoint,
)
from mmmap.utils.errors import UserError


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
    assert damage_of(_save(tmp_path / 'whole.pth')) is None
    assert damage_of(_save(tmp_path / 'cut.pth', keep=keep))
    assert damage_of(tmp_path / 'missing.pth')


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
        with pytest.raises(UserError, match=r'(cut off|empty): .*cut\.pth'):
            check_checkpoint_file(_save(tmp_path / 'cut.pth', keep=keep))


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize('function', ['fsync', 'replace'])
def test_a_file_that_cannot_be_written(tmp_path, monkeypatch, code, function):
    backend, target = AtomicLocalBackend(), tmp_path / 'epoch_1.pth'
    backend.put(b'old', target)

    def fail(*args):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch, pytest.raises(UserError) as error:
        patch.setattr(os, function, fail)
        backend.put(b'new', target)
    assert str(error.value).startswith(f'{target} could not be written ({os.strerror(code)}): ')
    assert target.read_bytes() == b'old'
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']


def test_a_full_disk(tmp_path):
    if not Path('/dev/full').exists():
        pytest.skip('no /dev/full')
    (tmp_path / 'epoch_1.pth.tmp').symlink_to('/dev/full')
    with pytest.raises(UserError, match=r'could not be written \(No space left on device'):
        AtomicLocalBackend().put(bytes(100_000), tmp_path / 'epoch_1.pth')
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file_is_moved(tmp_path):
    for turn in ('', '1'):
        (tmp_path / 'last_checkpoint').mkdir()
        (tmp_path / 'last_checkpoint' / 'notes.txt').touch()
        AtomicLocalBackend().put_text('epoch_1.pth', tmp_path / 'last_checkpoint')
        assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_1.pth'
        assert (tmp_path / f'last_checkpoint.folder{turn}' / 'notes.txt').exists()
        (tmp_path / 'last_checkpoint').unlink()


def _nothing(pointer):
    return None


POINTERS = {
    'missing': _nothing,
    'empty': Path.touch,
    'zeros': lambda pointer: pointer.write_bytes(bytes(30)),
    'no text': lambda pointer: pointer.write_bytes(b'\xff\xfe\x80'),
    'long': lambda pointer: pointer.write_text('a' * 5000),
    'long path': lambda pointer: pointer.write_text('a/' * 5000),
    'lines': lambda pointer: pointer.write_text('epoch_1.pth\nepoch_2.pth'),
    'folder': Path.mkdir,
    'dangling': lambda pointer: pointer.symlink_to('nowhere'),
    'loop': lambda pointer: pointer.symlink_to(pointer),
    'pipe': lambda pointer: os.mkfifo(pointer),
    'the folder itself': lambda pointer: pointer.write_text(str(pointer.parent)),
    'no such file': lambda pointer: pointer.write_text('/nowhere/epoch_7.pth'),
    'beside a file': lambda pointer: pointer.write_text(f'{pointer.parent}/epoch_1.pth/epoch_2.pth/x'),
}


@pytest.mark.parametrize('kind', POINTERS)
def test_every_damage_of_last_checkpoint(tmp_path, kind):
    _save(tmp_path / 'epoch_1.pth', age=30)
    newest = _save(tmp_path / 'epoch_2.pth', age=20)
    POINTERS[kind](tmp_path / 'last_checkpoint')
    path, messages = find_whole_checkpoint(tmp_path)
    assert path == newest
    assert all('\n' not in message for message in messages)
    assert len(messages) == 1 if kind == 'missing' else str(tmp_path / 'last_checkpoint') in messages[0]
    # The run can write it at its next save.
    AtomicLocalBackend().put_text(newest, tmp_path / 'last_checkpoint')
    assert find_whole_checkpoint(tmp_path) == (newest, [f'Resuming from {newest}.'])


def test_an_unreadable_last_checkpoint(tmp_path, monkeypatch):
    newest = _save(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(newest)

    def refuse(path):
        raise PermissionError(errno.EACCES, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'read_bytes', refuse)
    path, messages = find_whole_checkpoint(tmp_path)
    assert path == newest and 'last_checkpoint cannot be read (Permission denied)' in messages[0]


def test_a_copied_work_dir_goes_on_from_its_own_files(tmp_path):
    for name in ('run', 'copy', 'part'):
        (tmp_path / name).mkdir()
        _save(tmp_path / name / 'epoch_1.pth', age=30)
    for name in ('run', 'copy'):
        _save(tmp_path / name / 'epoch_2.pth', age=20)
    for name in ('run', 'copy', 'part'):
        (tmp_path / name / 'last_checkpoint').write_text(str(tmp_path / 'run' / 'epoch_2.pth'))
    assert find_whole_checkpoint(tmp_path / 'copy')[0] == str(tmp_path / 'copy' / 'epoch_2.pth')
    path, messages = find_whole_checkpoint(tmp_path / 'part')
    assert path == str(tmp_path / 'part' / 'epoch_1.pth') and 'does not exist' in messages[0]


def test_checkpoints_in_another_folder(tmp_path):
    # CheckpointHook(out_dir=...): the work directory has the pointer alone.
    for name in ('run', 'out'):
        (tmp_path / name).mkdir()
    first = _save(tmp_path / 'out' / 'epoch_1.pth', age=30)
    second = _save(tmp_path / 'out' / 'epoch_2.pth', age=20)
    (tmp_path / 'run' / 'last_checkpoint').write_text(second)
    assert find_whole_checkpoint(tmp_path / 'run')[0] == second
    _save(tmp_path / 'out' / 'epoch_2.pth', age=20, keep=0.5)
    assert find_whole_checkpoint(tmp_path / 'run')[0] == first


def test_a_flipped_bit_makes_a_run_go_back(tmp_path):
    first = _save(tmp_path / 'epoch_1.pth', age=30)
    second = _save(tmp_path / 'epoch_2.pth', age=20)
    (tmp_path / 'last_checkpoint').write_text(second)
    content = bytearray(Path(second).read_bytes())
    content[2000] ^= 4
    Path(second).write_bytes(content)
    path, messages = find_whole_checkpoint(tmp_path)
    assert path == first and messages[0].startswith(f'{second}, named in') and 'is damaged (checksum' in messages[0]
    with pytest.raises(UserError, match=r'checkpoint is damaged .*epoch_2\.pth'):
        check_checkpoint_file(second)


def test_a_planted_checkpoint_is_not_passed_over(tmp_path):
    # It is refused when it is loaded, with the line that says what it holds.
    _save(tmp_path / 'epoch_1.pth', age=30)
    planted = evil_checkpoint(tmp_path / 'epoch_2.pth', tmp_path / 'marker')
    assert find_whole_checkpoint(tmp_path)[0] == planted
    assert not (tmp_path / 'marker').exists()


def test_left_overs_are_removed_and_nothing_else(tmp_path):
    kept = ('epoch_1.pth', 'notes.tmp', 'epoch_1.pth.folder', 'data.npz.tmp')
    for name in (*kept, 'epoch_2.pth.tmp', 'last_checkpoint.tmp', 'best_accuracy_epoch_1.pth.tmp'):
        (tmp_path / name).touch()
    (tmp_path / 'epoch_3.pth.tmp').mkdir()
    (tmp_path / 'epoch_3.pth.tmp' / 'rank0.pth').touch()
    remove_left_overs(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_all_processes_take_the_same_checkpoint(monkeypatch):
    require_same_checkpoint('epoch_1.pth')
    monkeypatch.setattr(checkpoint_files, 'all_gather_object', lambda path: [path, 'epoch_1.pth', None])
    with pytest.raises(UserError, match=r'rank 0 epoch_2\.pth, rank 1 epoch_1\.pth, rank 2 None'):
        require_same_checkpoint('epoch_2.pth')
