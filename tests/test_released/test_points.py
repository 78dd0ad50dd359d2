"""PointMAP against numbers of the released code, through the converter's files."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcv.cnn.bricks import DropPath

from mmmap.models.layers import group_points
from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / 'tests' / 'data', *map(Path, filter(None, [os.environ.get('MMMAP_GOLDEN_DIR')]))]
FILES = sorted({path.name: path for folder in FOLDERS for path in folder.glob('pm*_*.npz')}.values())


def relative(ours: torch.Tensor, released: np.ndarray) -> float:
    """The largest difference over the largest released value."""
    released = torch.from_numpy(np.asarray(released)).double()
    return ((ours.detach().double().reshape(released.shape) - released).abs().max() / released.abs().max()).item()


class Released:
    """One fixture, and our model of its weights."""

    def __init__(self, path: Path, folder: Path) -> None:
        stored = np.load(path)
        self.values = {key: stored[key] for key in stored.files}
        self.config = config = json.loads(bytes(self.values['meta_json']))['config']
        weights = {key[3:]: torch.from_numpy(value) for key, value in self.values.items() if key.startswith('sd/')}
        source, target = folder / 'released.pth', folder / 'ours.pth'
        # As Point-MAE's runner, which PointMAP trains with, saves it.
        torch.save(dict(base_model=weights, epoch=9, metrics={}, best_metrics=dict(acc=np.float64(0.5))), source)
        spec = importlib.util.spec_from_file_location(
            'official_to_mmmap', ROOT / 'tools' / 'model_converters' / 'official_to_mmmap.py'
        )
        converter = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(converter)
        self.names = converter.convert(
            str(source),
            str(target),
            num_heads=config['num_heads'],
            num_groups=config['num_group'],
            group_size=config['group_size'],
            local_neighbours=config['center_local_k'],
            bimamba_type=config['bimamba_type'],
            loss=config['loss'],
        )
        self.pretraining = 'in/mask' in self.values
        checkpoint = torch.load(target, weights_only=True)
        self.model = MODELS.build(checkpoint['meta']['model_cfg']).eval()
        self.model.load_state_dict(checkpoint['state_dict'], strict=True)
        self.points = torch.from_numpy(self.values['in/pts'])


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def released(request, tmp_path) -> Released:
    return Released(request.param, tmp_path)


def test_groups(released):
    config = released.config
    centres, groups = group_points(released.points, config['num_group'], config['group_size'])
    assert np.array_equal(centres.numpy(), released.values['in/center'])
    assert np.array_equal(groups.numpy(), released.values['in/neighborhood'])
    centres, groups = released.model.backbone.tokenizer.group(released.points)
    assert np.array_equal(centres.numpy(), released.values['in/center'])


def check_pretraining(released: Released, prefix: str) -> None:
    model, values = released.model, released.values
    mask = torch.from_numpy(values['in/mask'])
    result = model.reconstruct(released.points, mask)
    loss = result.loss()
    loss.backward()
    assert relative(result.latent, values[f'{prefix}x_vis']) <= 3e-4
    assert relative(result.pred[mask], values[f'{prefix}rebuild']) <= 3e-4
    assert abs(loss.item() - float(values[f'{prefix}loss'])) <= 1e-5
    grads = prefix.replace('out/', '') + 'grad/'
    stored = {key.removeprefix(grads): value for key, value in values.items() if key.startswith(grads)}
    assert stored
    parameters = dict(model.named_parameters())
    for key, value in stored.items():
        name = released.names[key]
        grad = parameters[name.removesuffix('[0]').removesuffix('[1]')].grad
        if name.endswith(']'):
            grad = grad[int(name[-2])]
        assert relative(grad, value) <= 1e-3, key


def test_pretraining(released):
    if not released.pretraining:
        pytest.skip('a classifier')
    check_pretraining(released, 'out/')


def test_pretraining_in_training_mode(released):
    if 'train/loss' not in released.values:
        pytest.skip('no numbers of training mode')
    # In float32 one maximum over a group flips, which moves one gradient by 0.25 %.
    released.model.train().double()
    for module in released.model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    released.points = released.points.double()
    check_pretraining(released, 'train/')
    buffers = dict(released.model.named_buffers())
    for key, value in released.values.items():
        if key.startswith('train/sd_after/'):
            assert relative(buffers[released.names[key.removeprefix('train/sd_after/')]], value) <= 1e-5


def test_classifier(released):
    if released.pretraining:
        pytest.skip('pretraining')
    model, values = released.model, released.values
    assert relative(model.backbone(released.points)[0], values['out/concat_f']) <= 3e-4
    assert relative(model(released.points), values['out/logits']) <= 3e-4
    for i in range(3):
        assert relative(model(released.points[i : i + 1]), values[f'out/logits_alone_{i}']) <= 3e-4


def test_only_the_class_itself_gives_way_to_its_variants():
    backbone = MODELS.get('PointMAPHybrid')
    own = type('Own', (backbone,), {})
    assert type(own(arch=dict(embed_dim=16, layout='M'), num_groups=8, group_size=4)) is own
    with pytest.raises(TypeError, match='released'):
        own(released='encoder')
