"""Files that would run something when they are loaded are refused with one line, whichever way they come."""

import functools
import http.server
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import training
from base import ROOT, Campaign, Row

sys.path[:0] = [str(ROOT / 'tests'), str(ROOT / 'tools' / 'benchmarks')]

from evil_files import evil_checkpoint, evil_pickle, payloads  # noqa: E402

from mmmap.datasets import ModelNetFewShot  # noqa: E402

_INIT = 'model.backbone.init_cfg'
# The tool and its arguments; CONFIG, TEST, EVIL and PICKLE stand for files.
_WAYS = {
    'test': 'test.py TEST EVIL',
    '--resume FILE': 'train.py CONFIG --work-dir run --resume EVIL',
    '--resume, a planted epoch': 'train.py CONFIG --work-dir planted --resume',
    '--resume, a planted last_checkpoint': 'train.py CONFIG --work-dir pointed --resume',
    'load_from': 'train.py CONFIG --work-dir run --cfg-options load_from=EVIL',
    'load_from an address': 'train.py CONFIG --work-dir run --cfg-options load_from=ADDRESS',
    'init_cfg': f'train.py CONFIG --work-dir run --cfg-options {_INIT}.type=Pretrained {_INIT}.checkpoint=EVIL',
    'reconstruct --config': 'visualization/reconstruct.py EVIL IMAGE --config CONFIG',
    'reconstruct': 'visualization/reconstruct.py EVIL IMAGE',
    'response_maps': 'analysis_tools/response_maps.py CONFIG EVIL IMAGE',
    'confusion_matrix .pth': 'analysis_tools/confusion_matrix.py TEST EVIL',
    'confusion_matrix .pkl': 'analysis_tools/confusion_matrix.py TEST PICKLE',
    'official_to_mmmap': 'model_converters/official_to_mmmap.py EVIL ours.pth',
    'few-shot folds': None,
}


def run(campaign: Campaign) -> list[Row]:
    """Try all ways with all payloads."""
    kinds = list(payloads(Path('marker')))
    cases = [(campaign.folder, way, kind) for way in _WAYS for kind in kinds]
    note = f'{len(_WAYS)} ways, {len(kinds)} payloads each'
    return [
        campaign.row(
            'evil files: none runs, one line names the file', _load, cases[:: 13 if campaign.quick else 1], note
        )
    ]


def _load(case: tuple[Path, str, str]) -> str | None:
    base, way, kind = case
    folder = base / f'evil_{list(_WAYS).index(way)}_{kind}'
    marker = folder / 'marker'
    folder.mkdir()
    evil = evil_checkpoint(folder / 'evil.pth', marker, kind, meta=dict(epoch=1, iter=8))
    complaint = (
        _few_shot(folder, marker, kind) if _WAYS[way] is None else _run(base, folder, _WAYS[way], evil, marker, kind)
    )
    return 'the file was run' if marker.exists() else complaint


def _run(base: Path, folder: Path, way: str, evil: str, marker: Path, kind: str) -> str | None:
    evil_checkpoint(folder / 'planted' / 'epoch_1.pth', marker, kind, meta=dict(epoch=1, iter=8))
    (folder / 'pointed').mkdir()
    (folder / 'pointed' / 'last_checkpoint').write_text(evil)
    words = dict(
        CONFIG=base / 'pretraining.py',
        TEST=base / 'classification.py',
        EVIL=evil,
        PICKLE=evil_pickle(folder / 'evil.pkl', marker, kind),
        IMAGE=next((base / 'digits' / 'test').glob('*/*.png')),
    )
    with _served(folder) as address:
        words['ADDRESS'] = f'{address}/evil.pth'
        for word, value in words.items():
            way = way.replace(word, str(value))
        for name in ('run', 'planted', 'pointed'):
            way = way.replace(f'--work-dir {name}', f'--work-dir {folder / name}')
        tool, *arguments = way.split()
        run = training.Run(tool, *arguments, log=folder / 'log', first=functools.partial(_home, folder))
        status = run.wait()
    last = (run.printed().splitlines() or [''])[-1]
    if status != 1 or not any(name in last for name in ('evil.p', 'epoch_1.pth')):
        return f'status {status}, {last!r}'
    return run.complaint()


def _home(folder: Path) -> None:
    # Where torch.hub keeps downloads.
    os.environ['TORCH_HOME'] = str(folder / 'hub')
    os.chdir(folder)


class _served:
    """An address of a folder on this machine."""

    def __init__(self, folder: Path) -> None:
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                """Say nothing."""

        handler: Callable = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f'http://127.0.0.1:{self.server.server_port}'

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def _few_shot(folder: Path, marker: Path, kind: str) -> str | None:
    path = folder / '5way_10shot' / '0.pkl'
    path.parent.mkdir()
    evil_pickle(path, marker, kind)
    try:
        ModelNetFewShot(data_root=str(folder), way=5, shot=10, fold=0)
    except Exception as error:
        return None if '0.pkl' in str(error) and '\n' not in str(error) else f'{type(error).__name__}: {error}'
    return 'was read'
