import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('arguments', [['check'], ['format', '--check']], ids=['check', 'format'])
def test_ruff_is_clean(arguments):
    result = subprocess.run(
        [sys.executable, '-m', 'ruff', *arguments, '.'], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
