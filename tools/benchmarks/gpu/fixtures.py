"""The model against stored numbers of the released code, through the converter."""

import argparse
import contextlib
import importlib.util
import io
import json
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from mmmap.ops import available_backends, use_backend
from mmmap.registry import MODELS

from .common import ROOT, format_table

# Largest differences over largest values, that of the loss absolute, as in tests/test_models.
LIMITS = dict(latent=5e-5, pred=5e-5, loss=2e-6, gradients=2e-4)
# Parameters that hold both directions of a mixer.
DIRECTED = ('conv_weight', 'conv_bias', 'x_proj_weight', 'dt_proj_weight', 'dt_proj_bias', 'A_log', 'D')


def _converter() -> ModuleType:
    path = ROOT / 'tools/model_converters/official_to_mmmap.py'
    spec = importlib.util.spec_from_file_location('official_to_mmmap', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _relative(ours: torch.Tensor, released: np.ndarray) -> float:
    released = torch.from_numpy(released).double()
    ours = ours.detach().double().cpu().reshape(released.shape)
    return ((ours - released).abs().max() / released.abs().max()).item()


def check_fixture(path: Path, backends: list[str], device: torch.device) -> list[dict]:
    """Differences of latents, predictions, loss and gradients from one file, for each backend.

    Args:
        path: A ``map_*.npz``.
        backends: Scan backends to compute with.
        device: Where to compute.

    Returns:
        list[dict]: For each backend the four figures of ``LIMITS`` and whether all are small enough.
    """
    stored = np.load(path)
    values = {key: stored[key] for key in stored.files}
    ctor = json.loads(bytes(values['meta_json']))['ctor']
    heads = {key: ctor[key] for key in ('num_heads', 'decoder_num_heads')}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        source, target = f'{folder}/released.pth', f'{folder}/ours.pth'
        torch.save({key[3:]: torch.from_numpy(value) for key, value in values.items() if key[:3] == 'sd/'}, source)
        names = _converter().convert(source, target, **heads)
        checkpoint = torch.load(target, weights_only=True)
    rows = []
    for backend in backends:
        model = MODELS.build(checkpoint['meta']['model_cfg'])
        model.load_state_dict(checkpoint['state_dict'], strict=True)
        model.eval().to(device)
        images, mask = (torch.from_numpy(values[f'in/{key}']).to(device) for key in ('imgs', 'mask'))
        with use_backend(backend):
            result = model.reconstruct(images, mask)
            loss = result.loss()
            loss.backward()
        gradients = {}
        for name, parameter in model.named_parameters():
            both = name.split('.')[-1] in DIRECTED
            gradients |= {f'{name}[{i}]': parameter.grad[i] for i in range(2)} if both else {name: parameter.grad}
        errors = dict(
            latent=_relative(result.latent, values['out/enc']),
            pred=_relative(result.pred, values['out/pred']),
            loss=abs(loss.item() - float(values['out/loss'])),
            gradients=max(
                _relative(gradients[names[key[5:]]], value) for key, value in values.items() if key[:5] == 'grad/'
            ),
        )
        passed = all(errors[key] <= limit for key, limit in LIMITS.items())
        rows.append(dict(fixture=path.stem, backend=backend, **errors, passed='yes' if passed else 'NO'))
    return rows


def fixtures(args: argparse.Namespace, report: dict, device: torch.device) -> None:
    """Every ``map_*.npz`` of the given folders in float32 with every backend."""
    files = sorted({path.name: path for folder in args.fixtures for path in Path(folder).glob('map_*.npz')}.items())
    if not files:
        raise FileNotFoundError(f'no map_*.npz in {", ".join(map(str, args.fixtures))}')
    usable = [name for name, reason in available_backends().items() if reason is None and name != 'native']
    rows = [row for _, path in files for row in check_fixture(path, usable, device)]
    report['fixtures'] = dict(rows=rows, limits=LIMITS)
    columns = dict(fixture='', backend='') | dict.fromkeys(LIMITS, '.1e') | dict(passed='')
    print(format_table(rows, columns))
    if any(row['passed'] != 'yes' for row in rows):
        raise AssertionError('the model differs from the released code, see the table')
