import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('arguments', ['ruff check .', 'ruff format --check .', 'mypy'])
def test_lint_is_clean(arguments):
    result = subprocess.run(
        [sys.executable, '-m', *arguments.split()], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
