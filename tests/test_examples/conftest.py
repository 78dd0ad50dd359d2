import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / 'examples'


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """A function that imports an example by its name, as it is when run as a script."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def run_example(example, monkeypatch, capsys) -> Callable[..., str]:
    """A function that runs an example with arguments and gives what it printed."""

    def run(name: str, *args: object) -> str:
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        example(name).main()
        return capsys.readouterr().out

    return run
