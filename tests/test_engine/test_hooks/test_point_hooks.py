"""The reconstruction hook of points in a small run."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from PIL import Image

from mmmap.engine.hooks import PointReconstructionHook, PointSegVisualizationHook
from mmmap.structures.ply import read_ply


@dataclass
class Halves:
    """The first half of each cloud is visible, the other predicted as the points shifted by one."""

    mask: torch.Tensor
    inputs: torch.Tensor

    def clouds(self):
        half = self.inputs.shape[1] // 2
        return list(self.inputs[:, :half]), list(self.inputs[:, half:, :3] + 1)


class Pretraining(BaseModel):
    def __init__(self):
        super().__init__(data_preprocessor=BaseDataPreprocessor())
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.masks = []

    def reconstruct(self, inputs, mask=None):
        self.masks.append(mask)
        return Halves(torch.rand(len(inputs), 4) > 0.5 if mask is None else mask, inputs)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=(self.weight * inputs).mean())


def test_clouds_are_drawn_and_written(tmp_path):
    clouds = [torch.rand(16, 6) for _ in range(6)]
    model = Pretraining()
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            batch_size=6,
            collate_fn=dict(type='default_collate'),
            num_workers=0,
            dataset=[dict(inputs=cloud, data_samples=i) for i, cloud in enumerate(clouds)],
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[dict(type='PointReconstructionHook', interval=2, num_clouds=2)],
        visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name='point_hooks'),
        default_scope='mmengine',
        experiment_name='point_hooks',
    )
    runner.train()
    # Epochs 2 and 3, the last; with the masks of the first time.
    pictures = sorted(path.name for path in tmp_path.rglob('vis_image/*.png'))
    assert pictures == ['reconstruction_2.png', 'reconstruction_3.png']
    assert model.masks[0] is None and model.masks[1] is not None
    assert Image.open(next(tmp_path.rglob('reconstruction_2.png'))).size[0] > 900
    folder = next(tmp_path.rglob('points/epoch_2'))
    assert len(list(folder.iterdir())) == 6

    def xyz(name):
        vertices = read_ply(folder / name)
        return np.stack([vertices[axis] for axis in 'xyz'], axis=1)

    assert np.allclose(xyz('1_input.ply'), clouds[1][:, :3])
    assert np.allclose(xyz('1_visible.ply'), clouds[1][:8, :3])
    assert np.allclose(xyz('0_rebuilt.ply'), clouds[0][8:, :3] + 1)


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match='num_clouds=0 must be positive'):
        PointReconstructionHook(num_clouds=0)
    with pytest.raises(ValueError, match='interval=0'):
        PointReconstructionHook(interval=0)
    with pytest.raises(ValueError, match='interval=0 must be positive'):
        PointSegVisualizationHook(interval=0)
