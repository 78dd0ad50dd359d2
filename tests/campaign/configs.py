"""Configs spoilt at random train, or end with one line that names file and key."""

import re
import subprocess
import sys
from pathlib import Path

from base import Campaign, Row


def run(campaign: Campaign) -> list[Row]:
    """Run ``mutate_configs.py``."""
    number = campaign.count(300, 4)
    command = [
        sys.executable,
        str(Path(__file__).with_name('mutate_configs.py')),
        '--number',
        str(number),
        '--show',
        'not',
    ]
    command += ['--jobs', str(campaign.jobs), '--seed', str(campaign.seed)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=campaign.folder)
    row = Row('configs spoilt at random: they train, or one line names file and key', number)
    if not (total := re.search(r'^(\d+) mutants', result.stdout, re.MULTILINE)):
        row.lost = ['mutate_configs.py: ' + (result.stderr.splitlines() or ['no output'])[-1]] * number
        return [row]
    row.tried = int(total[1])
    found = re.findall(r'^not +(.*)\n +(.*)', result.stdout, re.MULTILINE)
    row.lost = [f'{mutant}: {line}'[:500] for mutant, line in found]
    counts = re.findall(r'^ +(\d+) (.*)$', result.stdout, re.MULTILINE)
    row.note = ', '.join(f'{count} {meaning}' for count, meaning in counts if count != '0')
    return [row]
