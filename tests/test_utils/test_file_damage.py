import random
import time
from pathlib import Path

import pytest
import torch

from mmmap.engine.checkpoint_files import damage_of
from mmmap.utils.errors import DamagedFileError
from mmmap.utils.file_damage import first_damage
from mmmap.utils.safe_load import load_checkpoint


def _content():
    return dict(
        state_dict=dict(weight=torch.linspace(-1, 1, 350).view(50, 7), index=torch.arange(5)),
        meta=dict(epoch=1, iter=40),
        optimizer=dict(state={0: dict(exp_avg=torch.linspace(0, 2, 350).view(50, 7))}, param_groups=[dict(lr=0.1)]),
    )


def _same(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return list(one) == list(two) and all(_same(one[key], two[key]) for key in one)
    return one == two


def test_no_bit_flips_unseen(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(_content(), path)
    assert damage_of(path) is None
    content, draw, harmless = path.read_bytes(), random.Random(0), 0
    for position in draw.sample(range(len(content) * 8), 200):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        if damage_of(path) is None:
            # Of padding, or a time that nobody reads.
            assert _same(load_checkpoint(path), _content()), f'bit {position} is another value'
            harmless += 1
        else:
            with pytest.raises(DamagedFileError, match=r'epoch_1\.pth'):
                load_checkpoint(path)
    assert harmless < 100


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_off(tmp_path, share):
    path = tmp_path / 'epoch_1.pth'
    torch.save(_content(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert first_damage(path) == ('is cut off' if share else 'is empty')


def test_other_files(tmp_path):
    assert first_damage(tmp_path / 'nothing.pth') == 'cannot be read (No such file or directory)'
    (tmp_path / 'page.pth').write_bytes(b'<html>not found</html>')
    assert 'is damaged' in first_damage(tmp_path / 'page.pth')
    torch.save(_content(), tmp_path / 'legacy.pth', _use_new_zipfile_serialization=False)
    assert first_damage(tmp_path / 'legacy.pth') is None
    content = (tmp_path / 'legacy.pth').read_bytes()
    (tmp_path / 'legacy.pth').write_bytes(content[:-100])
    assert 'is damaged' in damage_of(tmp_path / 'legacy.pth')


def test_a_file_is_read_once(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    torch.save(_content(), path)
    now = time.time()
    monkeypatch.setattr(time, 'time', lambda: now + 10)
    assert first_damage(path) is None
    with monkeypatch.context() as patch:
        patch.setattr('zipfile.ZipFile.testzip', lambda archive: pytest.fail('read again'))
        assert first_damage(path) is None
    # Written again: read again.
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    Path(path).write_bytes(content)
    assert first_damage(path) is not None
