"""Damaged checkpoint files are noticed: an earlier one is resumed from, and none is loaded as if it were whole."""

import random
import shutil
from pathlib import Path

import torch
import training
from base import Campaign, Row

from mmmap.engine.checkpoint_files import check_checkpoint_file, find_whole_checkpoint
from mmmap.utils.errors import UserError


def run(campaign: Campaign) -> list[Row]:
    """Flip bits, cut files, spoil the pointer."""
    source = campaign.folder / 'damage'
    training.train(campaign.folder / 'pretraining.py', source).wait()
    draw = random.Random(campaign.seed)
    newest = source / f'epoch_{training.EPOCHS}.pth'
    size = newest.stat().st_size
    flips = [(source, 'flip', draw.randrange(8 * size)) for _ in range(campaign.count(200, 10))]
    cuts = [(source, 'cut', length) for length in (0, 1, size - 1)]
    cuts += [(source, 'cut', draw.randrange(size)) for _ in range(campaign.count(50, 5) - len(cuts))]
    pointers = [(source, *pointer) for pointer in list(_POINTERS.items())[: campaign.count(len(_POINTERS))]]
    return [
        campaign.row('one bit of a checkpoint flipped', _damage, flips, 'noticed, or without effect on what is loaded'),
        campaign.row('a checkpoint cut short', _damage, cuts),
        campaign.row('`last_checkpoint` spoilt', _spoil, pointers, ', '.join(_POINTERS)),
    ]


# None: a folder.
_POINTERS = {
    'empty': b'',
    'NULs': b'\0' * 60,
    'not UTF-8': b'\xff\xfe\xfa' * 20,
    'over-long': b'x' * 5000,
    'another file': b'/etc/passwd',
    'a file that is gone': b'/nowhere/epoch_9.pth',
    'several lines': b'epoch_1.pth\nepoch_2.pth\n',
    'a folder': None,
}


def _copy(source: Path, name: str) -> Path:
    work_dir = source.with_name(f'damage_{name}')
    shutil.rmtree(work_dir, ignore_errors=True)
    work_dir.mkdir()
    for path in source.glob('epoch_*.pth'):
        shutil.copy(path, work_dir)
    (work_dir / 'last_checkpoint').write_text(str(work_dir / f'epoch_{training.EPOCHS}.pth'))
    return work_dir


def _damage(case: tuple[Path, str, int]) -> str | None:
    source, kind, place = case
    work_dir = _copy(source, f'{kind}_{place}')
    newest, earlier = (work_dir / f'epoch_{number}.pth' for number in (training.EPOCHS, training.EPOCHS - 1))
    content = bytearray(newest.read_bytes())
    if kind == 'cut':
        del content[place:]
    else:
        content[place // 8] ^= 1 << place % 8
    newest.write_bytes(content)
    wrong = _judge(newest, earlier, source)
    shutil.rmtree(work_dir)
    return wrong


def _judge(newest: Path, earlier: Path, source: Path) -> str | None:
    found, lines = find_whole_checkpoint(newest.parent)
    try:
        check_checkpoint_file(str(newest))
        named = True
    except UserError:
        named = False
    if found == str(earlier):
        if named:
            return '`--resume` notices it, a checkpoint named by hand passes'
        return None if any(str(newest) in line for line in lines) else f'passed over without a word: {lines}'
    if found != str(newest):
        return f'{found} is resumed from'
    # Some bits mean nothing, such as those between two members of the archive.
    same = _equal(torch.load(newest, weights_only=False), torch.load(source / newest.name, weights_only=False))
    return None if same and named else 'is loaded as if it were whole'


def _equal(ours: object, theirs: object) -> bool:
    if isinstance(theirs, torch.Tensor):
        return isinstance(ours, torch.Tensor) and torch.equal(ours, theirs)
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(_equal(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    return ours == theirs or (type(ours) is type(theirs) and not isinstance(theirs, int | float | str | bytes))


def _spoil(case: tuple[Path, str, bytes | None]) -> str | None:
    source, name, content = case
    work_dir = _copy(source, 'pointer_' + name.replace(' ', '_'))
    pointer = work_dir / 'last_checkpoint'
    pointer.unlink()
    if content is None:
        pointer.mkdir()
    else:
        pointer.write_bytes(content)
    config = source.with_name('pretraining.py')
    run = training.train(config, work_dir, '--resume', train_cfg__max_epochs=training.EPOCHS + 1)
    if (status := run.wait()) != 0:
        return f'status {status}: {run.printed().splitlines()[-1:]}'
    if f'epoch_{training.EPOCHS}.pth' not in run.printed():
        return 'did not go on from the newest checkpoint'
    if 'Traceback' in run.printed():
        return 'a traceback'
    return None if (work_dir / f'epoch_{training.EPOCHS + 1}.pth').exists() else 'nothing was saved afterwards'
