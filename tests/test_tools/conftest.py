import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MessageHub, MMLogger
from mmengine.visualization import Visualizer
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that pretrains on eight generated images in ``tmp_path / 'images'``; the current folder is elsewhere."""
    for seed in range(8):
        path = tmp_path / 'images' / ('cat' if seed % 2 else 'dog') / f'{seed}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype='uint8')).save(path)
    monkeypatch.setenv('TINY_MAP_DATA', str(tmp_path / 'images'))
    # The tools set it where a launcher did not.
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.chdir(tmp_path)
    return Path(__file__).with_name('tiny_map.py')


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., None]]:
    """A function that runs a tool in this process, as importing everything anew takes seconds."""

    def forget() -> None:
        # Named by the time of the run or made by another test, they would be found again, with an output that is closed
        # by then.
        for manager in (MMLogger, MessageHub, Visualizer):
            manager._instance_dict.clear()

    def run(name: str, *arguments: object) -> None:
        forget()
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')

    yield run
    forget()
