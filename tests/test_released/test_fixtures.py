"""MAP against numbers of the released code, through the converter's files."""

import argparse
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmap.models.layers.region_attention import attention_mask
from mmmap.ops import available_backends, use_backend
from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / 'tests' / 'data', *map(Path, filter(None, [os.environ.get('MMMAP_GOLDEN_DIR')]))]
FILES = list({path.name: path for folder in reversed(FOLDERS) for path in folder.glob('map_*.npz')}.values())
BACKENDS = ('reference', 'torch', 'native')


def relative(ours: torch.Tensor, released: np.ndarray) -> float:
    """The largest difference over the largest released value."""
    released = torch.from_numpy(released).double()
    assert ours.numel() == released.numel()
    return ((ours.detach().double().reshape(released.shape) - released).abs().max() / released.abs().max()).item()


def test_a_named_folder_of_fixtures_holds_some():
    for folder in FOLDERS:
        assert list(folder.glob('map_*.npz')), f'{folder} holds no map_*.npz'


class Released:
    """One fixture: what the released code gave, and our model of its weights after a trip through files."""

    def __init__(self, path: Path, folder: Path) -> None:
        stored = np.load(path)
        self.values = {key: stored[key] for key in stored.files}
        self.meta = json.loads(bytes(self.values['meta_json']))
        weights = {key[3:]: torch.from_numpy(value) for key, value in self.values.items() if key.startswith('sd/')}
        source, target = folder / 'released.pth', folder / 'ours.pth'
        optimizer = dict(state={0: dict(step=torch.tensor(3.0), exp_avg=torch.zeros(2))}, param_groups=[dict(lr=1e-3)])
        average = {key: torch.zeros_like(value) for key, value in weights.items()}
        args = argparse.Namespace(model='map', lr=5e-4, output_dir=Path('out'), betas=(0.9, 0.999))
        torch.save(dict(model=weights, model_ema=average, optimizer=optimizer, epoch=9, args=args), source)
        spec = importlib.util.spec_from_file_location(
            'official_to_mmmap', ROOT / 'tools' / 'model_converters' / 'official_to_mmmap.py'
        )
        converter = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(converter)
        ctor = self.meta['ctor']
        self.names = converter.convert(
            str(source), str(target), num_heads=ctor['num_heads'], decoder_num_heads=ctor['decoder_num_heads']
        )
        self.checkpoint = torch.load(target, weights_only=True)
        self.images = torch.from_numpy(self.values['in/imgs'])
        self.mask = torch.from_numpy(self.values['in/mask'])

    def model(self) -> torch.nn.Module:
        model = MODELS.build(self.checkpoint['meta']['model_cfg'])
        model.load_state_dict(self.checkpoint['state_dict'], strict=True)
        return model.eval()


# Parameters that hold both directions of a mixer.
DIRECTED = ('conv_weight', 'conv_bias', 'x_proj_weight', 'dt_proj_weight', 'dt_proj_bias', 'A_log', 'D')


@pytest.fixture(scope='module', params=sorted(FILES), ids=lambda path: path.stem)
def released(request, tmp_path_factory) -> Released:
    return Released(request.param, tmp_path_factory.mktemp('released'))


@pytest.fixture(params=BACKENDS)
def backend(request):
    reason = available_backends().get(request.param, 'is not a backend')
    if reason is not None:
        pytest.skip(f'{request.param}: {reason}')
    with use_backend(request.param):
        yield request.param


def test_forward_and_gradients(released, backend):
    model = released.model()
    result = model.reconstruct(released.images, released.mask)
    loss = result.loss()
    loss.backward()
    values = released.values
    assert result.latent.dtype == result.pred.dtype == loss.dtype == torch.float32
    assert result.latent.shape == values['out/enc'].shape
    assert result.pred.shape == values['out/pred'].shape
    assert relative(result.latent, values['out/enc']) <= 5e-5
    assert relative(result.pred, values['out/pred']) <= 5e-5
    assert abs(loss.item() - float(values['out/loss'])) <= 2e-6

    gradients = {}
    for name, parameter in model.named_parameters():
        both = name.split('.')[-1] in DIRECTED
        gradients |= {f'{name}[{i}]': parameter.grad[i] for i in range(2)} if both else {name: parameter.grad}
    stored = {key[5:]: value for key, value in values.items() if key.startswith('grad/')}
    assert stored
    errors = {key: relative(gradients[released.names[key]], value) for key, value in stored.items()}
    assert max(errors.values()) <= 2e-4, errors
    norms = dict(zip(released.meta['gradnorm_names'], values['gradnorm/values'], strict=True))
    # Every parameter of ours is compared: the released ones that act map onto ours one to one.
    assert sorted(released.names[key] for key in norms) == sorted(gradients)
    for key, norm in norms.items():
        assert gradients[released.names[key]].double().norm().item() == pytest.approx(norm, rel=2e-4), key


def test_five_steps_of_sgd(released, backend):
    model = released.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        loss = model.reconstruct(released.images, released.mask).loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(released.values['traj/sgd_lr0.05_losses'].tolist(), abs=1e-5)


def test_patches_and_decoder_mask(released):
    model = released.model()
    # The released code gives the patches as they are before they are normalised.
    assert torch.equal(model.head.patchify(released.images), torch.from_numpy(released.values['out/target']))
    tokens = model.backbone.tokenize(released.images)
    ours = attention_mask(tokens.region_ids, model.neck.attention)
    assert np.array_equal(ours.numpy(), released.values['out/decoder_mask_visible'].astype(bool))


def test_mask_may_be_bool_or_float(released):
    model = released.model()
    with torch.no_grad():
        results = [model.reconstruct(released.images, mask) for mask in (released.mask, released.mask.bool())]
    assert torch.equal(results[0].pred, results[1].pred)
    assert torch.equal(results[0].mask, results[1].mask)
    assert results[0].mask.dtype == torch.bool
