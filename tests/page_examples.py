"""The examples of docs/en/extend.md as files of a folder, in which they can be run as a reader would."""

import importlib
import os
import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from mmmap.models.layers.block import BLOCKS
from mmmap.registry import DATASETS, MODELS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/en/extend.md'
REGISTERED = BLOCKS, MODELS.module_dict, DATASETS.module_dict


def examples() -> dict[str, str]:
    """The code blocks of the page whose first line names a file."""
    blocks = re.findall(r'^```python\n(# (\S+\.py)\n.*?)^```$', PAGE.read_text(), re.M | re.S)
    return {name: text for text, name in blocks}


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Be in a folder with the examples, ``configs`` and the images; forget the examples' modules and names after it."""
    for name, text in examples().items():
        (folder / name).write_text(text)
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    before = [dict(names) for names in REGISTERED]
    back = Path.cwd()
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        runpy.run_path('write_digits.py')
        yield
    finally:
        os.chdir(back)
        sys.path.remove(str(folder))
        for names, old in zip(REGISTERED, before, strict=True):
            for name in names.keys() - old.keys():
                del names[name]
        for name in examples():
            sys.modules.pop(name.removesuffix('.py'), None)


def runner(config: str, steps: int, **changes: object) -> Runner:
    """A Runner of an example's config for a few steps of eight images, a checkpoint after half of them.

    Args:
        config (str): Its file.
        steps (int): Steps.
        **changes (object): Settings to merge, ``__`` for a dot.
    """
    cfg = Config.fromfile(config)
    settings = dict(
        work_dir=str(Path.cwd() / 'runs'),
        experiment_name=f'{Path.cwd().name}_{runner.calls}',
        train_dataloader__batch_size=8,
        train_dataloader__sampler=dict(type='InfiniteSampler', shuffle=True),
        train_cfg=dict(_delete_=True, by_epoch=False, max_iters=steps),
        default_hooks__checkpoint=dict(interval=max(steps // 2, 1), by_epoch=False, max_keep_ckpts=-1),
        randomness=dict(seed=0),
        visualizer__vis_backends=[],
    )
    runner.calls += 1
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in (settings | changes).items()})
    return Runner.from_cfg(cfg)


runner.calls = 0


def losses(run: Runner) -> list[float]:
    """The loss of each step since the Runner started."""
    return list(run.message_hub.get_scalar('train/loss').data[0])
