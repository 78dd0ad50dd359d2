import runpy
import signal
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
def tiny_classifier(tiny_map: Path, tmp_path: Path) -> Path:
    """A config that tests a classifier on the images of ``tiny_map``."""
    path = tmp_path / 'tiny_classifier.py'
    path.write_text(f"""
_base_ = {str(tiny_map)!r}
model = dict(
    _delete_=True,
    type='ImageClassifier',
    backbone=dict(
        type='MAPHybrid',
        arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4),
        img_size=32,
        patch_size=8,
        out_type='avg_featmap',
    ),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=16),
    data_preprocessor=dict(num_classes=2),
)
data_preprocessor = dict(_delete_=True, mean=[127.5] * 3, std=[127.5] * 3)
test_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root='{{{{$TINY_MAP_DATA:data/tiny}}}}',
        pipeline=[dict(type='LoadImageChecked', on_error='raise'), dict(type='PackInputs')],
        test_mode=True,
    ),
)
test_cfg = dict()
test_evaluator = dict(type='Accuracy', topk=(1,))
""")
    return path


@pytest.fixture
def run_tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Iterator[Callable[..., None]]:
    """A function that runs a tool in this process, as importing everything anew takes seconds."""

    def forget() -> None:
        # Named by the time of the run or made by another test, they would be found again, with an output that is closed
        # by then.
        for manager in (MMLogger, MessageHub, Visualizer, *Visualizer.__subclasses__()):
            manager._instance_dict.clear()

    def run(name: str, *arguments: object) -> None:
        forget()
        monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')

    # train.py takes some over.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)}
    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    forget()
