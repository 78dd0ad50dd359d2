"""PointMAP against numbers of the released code."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS as PRETRAIN_MODELS

from mmmap.models.layers import group_points
from mmmap.utils.released_point_keys import convert_point_state_dict

FOLDERS = [Path(__file__).parents[1] / 'data', *map(Path, filter(None, [os.environ.get('MMMAP_GOLDEN_DIR')]))]
FILES = sorted({path.name: path for folder in FOLDERS for path in folder.glob('pm*_*.npz')}.values())


def relative(ours: torch.Tensor, released: np.ndarray) -> float:
    """The largest difference over the largest released value."""
    released = torch.from_numpy(np.asarray(released)).double()
    return ((ours.detach().double().reshape(released.shape) - released).abs().max() / released.abs().max()).item()


class Released:
    """One fixture, and our model of its weights."""

    def __init__(self, path: Path) -> None:
        stored = np.load(path)
        self.values = {key: stored[key] for key in stored.files}
        self.config = config = json.loads(bytes(self.values['meta_json']))['config']
        weights = {key[3:]: torch.from_numpy(value) for key, value in self.values.items() if key.startswith('sd/')}
        state_dict, self.names = convert_point_state_dict(weights)
        width, size = config['trans_dim'], config['group_size']
        layout = ''.join('MT' if (i + 1) % 3 == 0 else 'M' for i in range(config['depth']))
        backbone = dict(
            type='PointMAPHybrid',
            arch=dict(embed_dim=width, layout=layout, num_heads=6, mlp_ratio=4.0),
            num_groups=config['num_group'],
            group_size=size,
            local_neighbours=config['center_local_k'],
            released=config['bimamba_type'],
        )
        self.pretraining = 'in/mask' in self.values
        if self.pretraining:
            neck = dict(type='ReleasedPointDecoder', embed_dim=width, drop_path_rate=0.0)
            head = dict(
                type='PointReconstructionHead',
                in_dim=width,
                group_size=size,
                loss_type=config['loss'].replace('cd', ''),
            )
            cfg = dict(type='MAP', backbone=backbone, neck=neck, head=head)
        else:
            head = dict(
                type='StackedLinearClsHead',
                num_classes=config['cls_dim'],
                in_channels=2 * width,
                mid_channels=[256, 256],
                dropout_rate=0.5,
                norm_cfg=dict(type='BN1d'),
            )
            cfg = dict(type='ImageClassifier', backbone=backbone | dict(out_type='cls_max_mean'), head=head)
        self.model = PRETRAIN_MODELS.build(cfg).eval()
        self.model.load_state_dict(state_dict, strict=True)
        self.points = torch.from_numpy(self.values['in/pts'])


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def released(request) -> Released:
    return Released(request.param)


def test_groups(released):
    config = released.config
    centres, groups = group_points(released.points, config['num_group'], config['group_size'])
    assert np.array_equal(centres.numpy(), released.values['in/center'])
    assert np.array_equal(groups.numpy(), released.values['in/neighborhood'])
    centres, groups = released.model.backbone.group(released.points)
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
