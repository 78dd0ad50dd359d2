"""Shapes under the tools: training, testing, and the votes of --tta."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from point_parts import GroupBackbone
from raw_shapes import write_coseg, write_shrec

from mmmap.registry import MODELS
from mmmap.structures.ply import read_ply

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = ['{configs}/_base_/datasets/{data}.py', '{configs}/_base_/default_runtime.py']
model = {model}
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(by_epoch=True, max_epochs=1, val_interval=1)
val_cfg = {{}}
test_cfg = {{}}
default_hooks = dict(logger=dict(interval=1))
"""
CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='PooledGroupsStandIn'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=8),
)
SEGMENTOR = dict(
    type='PointSegmentor',
    backbone=dict(type='GroupBackboneStandIn'),
    neck=dict(type='FeaturePropagation', in_channels=8, out_channels=16, num_taps=2, num_categories=2),
    head=dict(type='PointSegHead', in_channels=16, num_classes=5, category_parts=((0, 1, 2), (3, 4))),
)


class PooledGroups(GroupBackbone):
    """A vector for each cloud."""

    def forward(self, inputs):
        return tuple(groups.features.amax(1) for groups in super().forward(inputs))


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A current folder with small data sets."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    for module in (GroupBackbone, PooledGroups):
        MODELS.register_module(name=f'{module.__name__}StandIn', module=module, force=True)
    write_shrec(Path('data/shrec16.npz'), 1300)
    write_coseg(Path('data/coseg_human_part.npz'))


def check_pictures(run_tool, predictions):
    """Every shape of the test has a picture and a PLY file with its predicted parts, with and without votes."""
    options = ('--cfg-options', 'default_hooks.visualization.type=PointSegVisualizationHook')
    for name, votes in (('drawn', ()), ('drawn_votes', ('--tta',))):
        run_tool('test.py', 'tiny.py', 'train/epoch_1.pth', '--work-dir', 'x', '--show-dir', name, *votes, *options)
        stems = {f'test_data_coseg_human_part_points_test_{i}_0' for i in range(4)}
        assert {path.stem for path in Path(name).glob('*.png')} == stems
        assert {path.stem for path in Path(name).glob('*.ply')} == stems
    clouds = np.load('data/coseg_human_part.npz')['points_test'].astype('float32')
    for i, prediction in enumerate(predictions):
        vertices = read_ply(f'drawn/test_data_coseg_human_part_points_test_{i}_0.ply')
        assert np.array_equal(vertices['label'], prediction['pred_pts_seg']['pts_semantic_mask'])
        centred = clouds[i] - clouds[i].mean(0)
        assert np.allclose(vertices['z'], centred[:, 2] / np.linalg.norm(centred, axis=1).max(), atol=1e-5)


@pytest.mark.parametrize(
    ('data', 'model', 'score'),
    [
        ('shrec16_bs32_cls', CLASSIFIER, 'accuracy/top1'),
        ('coseg-human_bs16_part', SEGMENTOR, 'instance_mIoU'),
    ],
)
def test_training_test_and_votes(workplace, run_tool, data, model, score):
    Path('tiny.py').write_text(CONFIG.format(configs=ROOT / 'configs', data=data, model=model))
    run_tool('train.py', 'tiny.py', '--work-dir', 'train')
    log = [json.loads(line) for line in next(Path('train').rglob('scalars.json')).read_text().splitlines()]
    assert all(row['loss'] > 0 for row in log if 'loss' in row)
    assert 0 <= log[-1][score] <= 100
    predictions = []
    for name, options in (('once', ()), ('votes', ('--tta',))):
        run_tool('test.py', 'tiny.py', 'train/epoch_1.pth', '--work-dir', name, '--out', f'{name}.pkl', *options)
        scores = json.loads(next(Path(name).rglob('*.json')).read_text())
        assert 0 <= scores[score] <= 100
        predictions.append(load(f'{name}.pkl'))
    if 'coseg' in data:
        check_pictures(run_tool, predictions[0])
    once, votes = (
        torch.stack(
            [torch.as_tensor(p['pred_score'] if 'pred_score' in p else p['pred_pts_seg']['scores']) for p in part]
        )
        for part in predictions
    )
    assert once.shape == votes.shape and len(once) == (6 if 'shrec' in data else 4)
    # Votes are probabilities too, and others than those for the shapes as they are.
    torch.testing.assert_close(votes.sum(-1), torch.ones(votes.shape[:-1]))
    assert not torch.allclose(once, votes, atol=1e-4)
