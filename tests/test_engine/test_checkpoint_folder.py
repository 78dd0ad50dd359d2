import os
import shutil

import pytest
import torch

from mmmap.engine.checkpoint_files import check_checkpoint_file, damage_of, find_whole_checkpoint
from mmmap.utils.atomic_files import replace
from mmmap.utils.errors import UserError

LAYOUTS = {
    'FSDP': ['rank{}.pth'],
    'ZeRO 1': ['mp_rank_00_model_states.pt', 'zero_pp_rank_{}_mp_rank_00_optim_states.pt'],
    'ZeRO 1, bfloat16': ['mp_rank_00_model_states.pt', 'bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt'],
    'ZeRO 3': ['zero_pp_rank_{}_mp_rank_00_model_states.pt', 'bf16_zero_pp_rank_{}_mp_rank_00_optim_states.pt'],
    'without ZeRO': ['mp_rank_00_model_states.pt'],
}


def _write(folder, layout, processes=3, legacy=False):
    folder.mkdir(parents=True)
    for name in LAYOUTS[layout]:
        for rank in range(processes if '{}' in name else 1):
            content = dict(module=dict(weight=torch.zeros(100)), dp_world_size=processes)
            torch.save(content, folder / name.format(rank), _use_new_zipfile_serialization=not legacy)
    return folder


@pytest.mark.parametrize('legacy', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_complete_folders(tmp_path, layout, legacy):
    folder = _write(tmp_path / 'run' / 'epoch_1.pth', layout, legacy=legacy)
    assert damage_of(folder) is None
    check_checkpoint_file(str(folder))
    assert find_whole_checkpoint(tmp_path / 'run')[0] == str(folder)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_part_is_needed_and_whole(tmp_path, layout):
    before = _write(tmp_path / 'run' / 'epoch_1.pth', layout)
    os.utime(before, (1, 1))
    whole = _write(tmp_path / 'whole', layout)
    folder = tmp_path / 'run' / 'epoch_2.pth'
    for part in sorted(path.name for path in whole.iterdir()):
        for harm in ('removed', 'cut off', 'changed'):
            if harm == 'removed' and part == 'rank2.pth':
                continue  # FSDP does not note how many processes there were.
            shutil.copytree(whole, folder, dirs_exist_ok=True)
            (tmp_path / 'run' / 'last_checkpoint').write_text(str(folder))
            content = bytearray((folder / part).read_bytes())
            content[len(content) // 2] ^= 1
            if harm == 'removed':
                (folder / part).unlink()
            else:
                (folder / part).write_bytes(content if harm == 'changed' else content[:-50])
            path, messages = find_whole_checkpoint(tmp_path / 'run')
            assert path == str(before), (part, harm)
            assert str(folder) in messages[0]
            with pytest.raises(UserError, match=r'^checkpoint (lacks|is) .*epoch_2\.pth$'):
                check_checkpoint_file(str(folder))


def test_folders_of_something_else(tmp_path):
    (tmp_path / 'epoch_1.pth').mkdir()
    assert damage_of(tmp_path / 'epoch_1.pth') == 'is a folder without parts of a checkpoint'
    (tmp_path / 'epoch_1.pth' / 'notes.txt').touch()
    assert damage_of(tmp_path / 'epoch_1.pth') == 'is a folder without parts of a checkpoint'
    assert find_whole_checkpoint(tmp_path)[0] is None


def test_a_folder_replaces_another(tmp_path):
    for name in ('epoch_1.pth', 'epoch_1.pth.tmp'):
        _write(tmp_path / name, 'FSDP', processes=4 if name == 'epoch_1.pth' else 2)
    replace(tmp_path / 'epoch_1.pth.tmp', tmp_path / 'epoch_1.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['epoch_1.pth']
    assert sorted(path.name for path in (tmp_path / 'epoch_1.pth').iterdir()) == ['rank0.pth', 'rank1.pth']
