"""Trials that try to lose, ruin or bend a training: kills, damaged and evil files, full disks, numbers that break.

    python tests/campaign [--only NAME ...] [--quick] [--jobs 2] [--out FOLDER]

prints a table of what was tried, survived and lost, and writes it as Markdown and JSON. *Survived* means that the
result is right, or that the program ended with the one line that the documentation promises; *lost* is all else:
silence, wrong numbers, tracebacks, hanging. It is no part of the test suite, which runs a small part of it.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from base import Campaign, Row  # noqa: E402

# A module each.
TRIALS = (
    'kills', 'damage', 'not_finite', 'evil', 'disk', 'processes', 'signals', 'configs', 'leaks', 'operators',
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=TRIALS, default=TRIALS, metavar='NAME', help=', '.join(TRIALS))
    parser.add_argument('--quick', action='store_true', help='one or two trials of each kind')
    parser.add_argument('--jobs', type=int, default=2, help='trials side by side')
    parser.add_argument('--seed', type=int, default=0, help='of what is drawn at random')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/campaign'), help='folder for the tables')
    return parser.parse_args()


def main() -> None:
    """Run the trials."""
    args = parse_args()
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    import torch
    import training

    from mmmap.utils.benchmark import describe_machine

    # No thread of this process may hold a lock when it forks.
    torch.set_num_threads(1)
    rows, start = [], time.time()
    with tempfile.TemporaryDirectory(prefix='campaign-') as folder:
        campaign = Campaign(Path(folder), args.seed, args.jobs, args.quick)
        training.prepare(campaign.folder)
        for name in args.only:
            began = time.time()
            found = importlib.import_module(name).run(campaign)
            rows += found
            for row in found:
                print(f'{line(row)}  [{name}, {time.time() - began:.0f} s]', flush=True)
                for lost in row.lost[:20]:
                    print(f'    lost: {lost}', flush=True)
    facts = describe_machine(args.seed, threads=1)
    machine = f'{facts["cpu"]}, {facts["cores"]} cores, Python {facts["python"]}, torch {facts["torch"]}'
    command = ' '.join(['python', 'tests/campaign', *sys.argv[1:]])
    args.out.mkdir(parents=True, exist_ok=True)
    result = dict(command=command, machine=facts, seconds=round(time.time() - start))
    result['rows'] = [asdict(row) for row in rows]
    (args.out / 'campaign.json').write_text(json.dumps(result, indent=1) + '\n')
    (args.out / 'campaign.md').write_text(markdown(rows, command, machine))
    lost = sum(len(row.lost) for row in rows)
    tried = sum(row.tried for row in rows)
    print(f'{tried} tried, {lost} lost, {time.time() - start:.0f} s; table in {args.out}/campaign.md')
    sys.exit(1 if lost else 0)


def line(row: Row) -> str:
    """A row for the terminal."""
    if row.skipped:
        return f'skipped: {row.what} ({row.skipped})'
    return f'{row.survived:4d} of {row.tried:4d} survived: {row.what}'


def markdown(rows: list[Row], command: str, machine: str) -> str:
    """The table, with the command and the machine."""
    lines = [f'`{command}` on {machine}.', '', '| trial | tried | survived | lost |', '|---|---:|---:|---:|']
    for row in rows:
        what = row.what + (f' ({row.note})' if row.note else '')
        counts = f'skipped: {row.skipped} | | ' if row.skipped else f'{row.tried} | {row.survived} | {len(row.lost)}'
        lines.append(f'| {what} | {counts} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    main()
