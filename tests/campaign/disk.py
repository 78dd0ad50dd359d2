"""A disk that is full stops a training with one line, and costs none of what was saved."""

import os
import subprocess
from pathlib import Path

import training
from base import Campaign, Row


def run(campaign: Campaign) -> list[Row]:
    """Train on file systems of a few megabytes, which fill at different moments."""
    what = 'disk full, more space, then `--resume`: as if it had never been'
    training.train(campaign.folder / 'pretraining.py', campaign.folder / 'whole_disk').wait()
    size = (campaign.folder / 'whole_disk' / f'epoch_{training.EPOCHS}.pth').stat().st_size
    first = campaign.folder / 'disk_try'
    first.mkdir()
    if not _mount(first, size):
        return [Row(what, skipped='a small tmpfs cannot be mounted here')]
    subprocess.run(['umount', first], check=True)
    # From no room for the first checkpoint to almost enough for three of them.
    cases = [(campaign.folder, int(share * size)) for share in (0.5, 1.5, 1.9, 2.5)[: campaign.count(4, 1)]]
    return [campaign.row(what, _fill, cases)]


def _mount(folder: Path, size: int, remount: bool = False) -> bool:
    options = f'size={size}' + ',remount' * remount
    try:
        return (
            subprocess.run(['mount', '-t', 'tmpfs', '-o', options, 'tmpfs', folder], capture_output=True).returncode
            == 0
        )
    except OSError:
        return False


def _fill(case: tuple[Path, int]) -> str | None:
    folder, size = case
    work_dir = folder / f'disk_{size}'
    work_dir.mkdir()
    if not _mount(work_dir, size):
        return 'could not be mounted'
    try:
        run = training.train(folder / 'pretraining.py', work_dir)
        if (status := run.wait()) != 1:
            return f'status {status} on a full disk'
        if complaint := run.complaint():
            return complaint
        if 'space' not in run.printed().splitlines()[-1].lower():
            return f'the line does not say so: {run.printed().splitlines()[-1]}'
        _mount(work_dir, 100 * size, remount=True)
        run = training.train(folder / 'pretraining.py', work_dir, '--resume')
        if (status := run.wait()) != 0:
            return f'resumed: status {status}, {run.printed().splitlines()[-1:]}'
        if left := list(work_dir.glob('*.tmp')):
            return f'{left[0].name} was left behind'
        return training.difference(work_dir, folder / 'whole_disk')
    finally:
        os.sync()
        subprocess.run(['umount', work_dir], check=False)
