"""Files whose loading would run something: they make a file, if anything of them is run."""

import pickle
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import HistoryBuffer


class Call:
    """Is pickled as a call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call

    def __call__(self) -> None:
        """A pickle accepts as a function what can be called."""


def over_getattr(marker: Path) -> Call:
    """A call of open(), reached from HistoryBuffer, which checkpoints hold, by getattr alone."""
    scope = Call(getattr, Call(getattr, HistoryBuffer, '__init__'), '__globals__')
    builtins = Call(Call(getattr, scope, '__getitem__'), '__builtins__')
    return Call(Call(Call(getattr, builtins, '__getitem__'), 'open'), str(marker), 'w')


def payloads(marker: Path) -> dict[str, Any]:
    """Objects that make a file when they are unpickled.

    Args:
        marker (Path): The file.
    """
    return dict(
        touch=Call(Path.touch, marker),
        open=Call(open, str(marker), 'w'),
        eval=Call(eval, f'open({str(marker)!r}, "w")'),
        getattr=over_getattr(marker),
    )


def evil_checkpoint(path: Path, marker: Path, kind: str = 'open', legacy: bool = False, **content: Any) -> str:
    """Write a checkpoint with such an object.

    Args:
        path (Path): Where it goes.
        marker (Path): The file to make.
        kind (str): A key of :func:`payloads`. Defaults to 'open'.
        legacy (bool): In the format before torch 1.6. Defaults to False.
        content (Any): What else it holds.

    Returns:
        str: The path.
    """
    path.parent.mkdir(exist_ok=True)
    content = dict(state_dict=dict(weight=torch.zeros(1)), **content, extra=payloads(marker)[kind])
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return str(path)


def evil_pickle(path: Path, marker: Path, kind: str = 'open', protocol: int = 2) -> str:
    """Write a pickle with such an object; as :func:`evil_checkpoint`."""
    path.write_bytes(pickle.dumps([dict(gt_label=0, pred_score=0), payloads(marker)[kind]], protocol=protocol))
    return str(path)
