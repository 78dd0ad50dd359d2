"""Classifiers against the released Mamba-R and its composite with MAP's blocks, through the converter's files."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample

from mmmap.models.layers import register_order
from mmmap.ops import available_backends, use_backend
from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / 'tests' / 'data', *map(Path, filter(None, [os.environ.get('MMMAP_GOLDEN_DIR')]))]
# Of two files of a name the one in the named folder, which may hold more.
FILES = list({path.name: path for folder in FOLDERS for path in folder.glob('*cls_*.npz')}.values())
FILES = [path for path in FILES if path.name.startswith(('cls_', 'mapcls_'))]  # Images, not point clouds.
BACKENDS = ('reference', 'torch', 'native')


def assert_close(ours: torch.Tensor, released: np.ndarray, of_largest: float, rtol: float, what: str) -> None:
    """Within ``of_largest`` of the largest released value, and each value within ``rtol`` of itself or that."""
    released = torch.from_numpy(released)
    ours = ours.detach().reshape(released.shape)
    largest = released.abs().max().item()
    assert (ours - released).abs().max() <= of_largest * largest, what
    torch.testing.assert_close(ours, released, rtol=rtol, atol=1e-5 * largest, msg=lambda text: f'{what}: {text}')


class Released:
    """One fixture: what the released code gave, and our model of its weights after a trip through files."""

    def __init__(self, path: Path, folder: Path) -> None:
        stored = np.load(path)
        self.values = {key: stored[key] for key in stored.files}
        meta = json.loads(bytes(self.values['meta_json']))
        self.ctor = meta['ctor']
        weights = {key[3:]: torch.from_numpy(value) for key, value in self.values.items() if key.startswith('sd/')}
        source, target = folder / 'released.pth', folder / 'ours.pth'
        torch.save(dict(model=weights, epoch=9), source)
        spec = importlib.util.spec_from_file_location(
            'official_to_mmmap', ROOT / 'tools' / 'model_converters' / 'official_to_mmmap.py'
        )
        converter = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(converter)
        self.names = converter.convert(str(source), str(target), num_heads=self.ctor.get('num_heads'))
        assert set(self.names) == set(weights)
        self.checkpoint = torch.load(target, weights_only=True)
        self.images = torch.from_numpy(self.values['in/imgs'])
        self.labels = torch.from_numpy(self.values['in/labels'])

    def model(self) -> torch.nn.Module:
        model = MODELS.build(self.checkpoint['meta']['model_cfg'])
        model.load_state_dict(self.checkpoint['state_dict'], strict=True)
        return model.eval()


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


def test_a_named_folder_of_fixtures_holds_both_kinds():
    for folder in FOLDERS:
        for kind in ('cls', 'mapcls'):
            assert list(folder.glob(f'{kind}_*.npz')), f'{folder} holds no {kind}_*.npz'


def test_the_config_tells_the_classifier(released):
    cfg, ctor = released.checkpoint['meta']['model_cfg'], released.ctor
    assert cfg['backbone']['num_registers'] == cfg['neck']['num_registers'] == ctor['num_cls_tokens']
    assert cfg['neck']['reduction'] == ctor.get('cls_reduce', 1)
    assert cfg['head']['num_classes'] == cfg['data_preprocessor']['num_classes'] == ctor['num_classes']
    backbone = released.model().backbone
    assert backbone.img_size == (ctor['img_size'],) * 2
    assert backbone.patch_size == ctor['patch_size']
    assert backbone.encoder.layout.count('M') == ctor['depth']


def test_features_and_logits(released, backend):
    model = released.model()
    with torch.no_grad():
        (features,) = model.extract_feat(released.images, stage='neck')
        logits = model(released.images, mode='tensor')
    for ours, key in ((features, 'out/features'), (logits, 'out/logits')):
        assert ours.dtype == torch.float32
        assert ours.shape == released.values[key].shape
        assert_close(ours, released.values[key], of_largest=5e-5, rtol=1e-4, what=key)


def test_loss_and_gradients(released, backend):
    model = released.model()
    samples = [DataSample().set_gt_label(label) for label in released.labels]
    loss = model(released.images, samples, mode='loss')['loss']
    loss.backward()
    values = released.values
    assert loss.item() == pytest.approx(float(values['out/loss']), abs=2e-6)
    parameters = dict(model.named_parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in parameters.values())
    for key, value in values.items():  # The stored files hold no gradients, those of a named folder do.
        kind, _, key = key.partition('/')
        if kind != 'grad':
            continue
        name, _, direction = released.names[key].partition('[')
        gradient = parameters[name].grad
        gradient = gradient[int(direction[0])] if direction else gradient
        assert_close(gradient, value, of_largest=2e-4, rtol=2e-4, what=key)


def test_order_of_registers_and_image_tokens(released):
    token_idx, number = released.values['token_idx'], released.ctor['num_cls_tokens']
    order, _, positions = register_order(token_idx.size - number, number)
    assert order.tolist() == token_idx.tolist()
    assert positions.tolist() == released.values['cls_positions'].tolist()
