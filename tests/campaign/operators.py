"""The calls of ``operator_calls.py``, with the native kernels as they are and under AddressSanitizer."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from base import ROOT, Campaign, Row


def run(campaign: Campaign) -> list[Row]:
    """Make the calls in a process of their own, then again under AddressSanitizer."""
    number = campaign.count(1000, 40)
    what = f'operators on random shapes, strides, types and {number // 4} or so impossible arguments'
    rows = [_calls(Row(what, number), number, campaign.seed, {})]
    if campaign.quick:
        return rows
    row = Row(f'{what}, under AddressSanitizer', number)
    with tempfile.TemporaryDirectory(prefix='campaign-asan-') as folder:
        library, reason = _build_sanitized(Path(folder))
        if library is None:
            row.tried, row.skipped = 0, reason
        else:
            environment = dict(
                CAMPAIGN_PACKAGE=folder,
                LD_PRELOAD=library,
                # Python and torch keep what they allocate.
                ASAN_OPTIONS='detect_leaks=0:verify_asan_link_order=0:abort_on_error=1',
            )
            _calls(row, number, campaign.seed + 1, environment)
    return [*rows, row]


def _calls(row: Row, number: int, seed: int, environment: dict[str, str]) -> Row:
    command = [
        sys.executable,
        '-W',
        'ignore',
        str(Path(__file__).with_name('operator_calls.py')),
        str(number),
        str(seed),
    ]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    lines = result.stdout.splitlines()
    if result.returncode != 0 or not lines:
        found = re.search(r'ERROR: AddressSanitizer.*', result.stderr)
        reason = found[0] if found else ' '.join(result.stderr.split()[-40:])
        calls = [line for line in lines if line.isdigit()]
        row.tried = len(calls)
        row.lost = [f'the process ended with status {result.returncode} in call {calls[-1:]}, seed {seed}: {reason}']
    else:
        row.lost = json.loads(lines[-1])
    return row


def _build_sanitized(folder: Path) -> tuple[str | None, str]:
    """Build the native kernels with AddressSanitizer beside links to the rest of the package.

    Returns:
        tuple[str | None, str]: The libraries to be loaded first, None if this cannot be done here; why not.
    """
    try:
        # Of two: without the other, the first does not see C++ exceptions, by which torch tells errors.
        libraries = [
            subprocess.run(['gcc', f'-print-file-name={name}'], capture_output=True, text=True).stdout.strip()
            for name in ('libasan.so', 'libstdc++.so')
        ]
    except OSError:
        return None, 'no gcc'
    if not all(Path(library).is_absolute() for library in libraries):
        return None, 'no libasan'
    for path in (ROOT / 'mmmap').rglob('*'):
        target = folder / path.relative_to(ROOT)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        elif path.suffix != '.so' and '__pycache__' not in path.parts:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    for name in ('setup.py', 'requirements', 'pyproject.toml'):
        (folder / name).symlink_to(ROOT / name)
    flags = '-fsanitize=address -fno-omit-frame-pointer -O1'
    environment = os.environ | dict(CFLAGS=flags, LDFLAGS='-fsanitize=address', MAX_JOBS='2')
    build = subprocess.run(
        [sys.executable, 'setup.py', 'build_ext', '--inplace'],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    if not list((folder / 'mmmap' / 'ops').glob('_native*.so')):
        return None, f'the build failed: {(build.stderr.splitlines() or [""])[-1][:200]}'
    return ':'.join(libraries), ''
