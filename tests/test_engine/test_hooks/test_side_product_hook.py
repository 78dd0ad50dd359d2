"""Whatever goes wrong in a side product, the training goes on and says why, once."""

import logging
import os
import re

import numpy as np
import pytest
import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseModel
from mmengine.registry import HOOKS, VISBACKENDS
from mmengine.runner import Runner, get_priority
from mmengine.visualization import LocalVisBackend

from mmmap.engine.hooks import KNNHook, PointReconstructionHook, ReconstructionHook, SideProductHook
from mmmap.engine.hooks.point_seg_visualization_hook import PointSegVisualizationHook
from mmmap.engine.hooks.side_product_hook import protect_side_products
from mmmap.models.selfsup import MAP
from mmmap.visualization import draw_reconstruction


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=(self.weight * torch.stack(inputs)).mean())

    def reconstruct(self, inputs, mask=None):
        raise ValueError('nothing to\nrebuild')

    def extract_feat(self, inputs):
        raise ValueError('no features')


class CurveHook(SideProductHook):
    """A hook of somebody else."""

    def after_train_epoch(self, runner):
        self.attempt(self._write, runner)

    def _write(self, runner):
        # The second reason is another one.
        raise RuntimeError('no curve' if runner.epoch < 2 else 'no paper')


class SomeVisualizationHook(Hook):
    """As of another package."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        raise RuntimeError('cannot draw')


class BrokenBackend(LocalVisBackend):
    def add_scalars(self, *args, **kwargs):
        raise ConnectionError('no network')

    add_image = add_scalar = add_scalars


@pytest.fixture(autouse=True)
def registered():
    HOOKS.register_module(name='CurveHook', module=CurveHook)
    VISBACKENDS.register_module(name='BrokenBackend', module=BrokenBackend)
    yield
    HOOKS.module_dict.pop('CurveHook')
    VISBACKENDS.module_dict.pop('BrokenBackend')


def _loader(count=4):
    dataset = [dict(inputs=torch.rand(3, 4, 4), data_samples=i) for i in range(count)]
    return dict(batch_size=2, num_workers=0, dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False))


def _runner(folder, *hooks, epochs=4, backends=('LocalVisBackend',)):
    return Runner(
        model=Model(),
        work_dir=str(folder),
        train_dataloader=_loader(),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=list(hooks),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type=name) for name in backends], name=folder.name),
        default_scope='mmengine',
        experiment_name=f'side_products_{folder.name}',
    )


def _warnings(folder):
    text = next(folder.glob('*/*.log')).read_text()
    return [line for line in text.splitlines() if 'failed; the run continues' in line]


@pytest.mark.parametrize(
    ('hook', 'reasons'),
    [
        (dict(type='ReconstructionHook', interval=1), ['ReconstructionHook failed.*ValueError: nothing to rebuild']),
        (dict(type='PointReconstructionHook', interval=1), ['ValueError: nothing to rebuild']),
        (dict(type='KNNHook', interval=1, k=1), ['KNNHook failed.*ValueError: no features']),
        (dict(type='CurveHook'), ['RuntimeError: no curve', 'RuntimeError: no paper']),
    ],
)
def test_errors_are_logged_once_for_each_reason_and_the_training_ends_well(tmp_path, hook, reasons):
    if hook['type'] == 'KNNHook':
        hook = hook | dict(bank_dataloader=_loader(), query_dataloader=_loader())
    runner = _runner(tmp_path, hook)
    runner.train()
    assert runner.epoch == 4 and (tmp_path / 'epoch_4.pth').is_file()
    assert runner.model.training
    lines = _warnings(tmp_path)
    assert len(lines) == len(reasons)
    for line, reason in zip(lines, reasons, strict=True):
        assert re.search(reason, line), line


def test_side_products_come_after_the_checkpoint(tmp_path):
    for kind in (KNNHook, ReconstructionHook, PointReconstructionHook, PointSegVisualizationHook):
        assert issubclass(kind, SideProductHook)
        assert get_priority(kind.priority) > get_priority(CheckpointHook.priority)

    class Killed(SideProductHook):
        def after_train_epoch(self, runner):
            assert (tmp_path / 'epoch_1.pth').is_file()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _runner(tmp_path, Killed()).train()


def test_hooks_and_backends_of_other_packages_are_caught(tmp_path):
    runner = _runner(tmp_path, SomeVisualizationHook(), backends=('BrokenBackend', 'LocalVisBackend'))
    # Or the fault would end it.
    protect_side_products(runner)
    runner.train()
    assert (tmp_path / 'epoch_4.pth').is_file()
    lines = _warnings(tmp_path)
    assert sum('SomeVisualizationHook failed' in line and 'cannot draw' in line for line in lines) == 1
    assert sum('BrokenBackend.add_scalars failed' in line and 'no network' in line for line in lines) == 1
    assert len(lines) == 2
    # The other backend has the curves.
    assert len(next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()) > 0


def test_more_neighbours_than_images_is_an_error_at_the_start(tmp_path):
    hook = dict(type='KNNHook', k=5, bank_dataloader=_loader(), query_dataloader=_loader())
    with pytest.raises(Exception, match='k=5 is more than the 4 images of bank_dataloader'):
        _runner(tmp_path, hook).train()


def _one_of_two(rank, folder):
    """A process of two; the second has no features."""
    os.environ.update(MASTER_ADDR='127.0.0.1', RANK=str(rank), WORLD_SIZE='2')
    torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2)
    hook = SideProductHook()

    def share():
        if rank == 1:
            raise ValueError('broken image')
        return 'features'

    logging.disable()
    together = hook.attempt_together(share)
    alone = hook.attempt_together(lambda: rank)
    (folder / f'{rank}.txt').write_text(f'{together} {alone} {sorted(hook._told)}')
    torch.distributed.barrier()


def test_processes_give_up_together(tmp_path):
    torch.multiprocessing.start_processes(_one_of_two, (tmp_path,), nprocs=2, start_method='fork')
    for rank in range(2):
        text = (tmp_path / f'{rank}.txt').read_text()
        assert text == f"None {rank} ['rank 1: ValueError: broken image']"


@pytest.mark.parametrize('channels', [1, 2, 3, 13])
def test_pictures_of_any_number_of_channels(tmp_path, channels):
    backbone = dict(
        type='MAPHybrid',
        arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4),
        img_size=8,
        patch_size=2,
        in_channels=channels,
    )
    model = MAP(
        backbone,
        dict(type='RegionCausalDecoder', in_dim=16, grid=4, embed_dim=16, depth=1, num_heads=2),
        dict(type='PixelReconstructionHead', in_dim=16, patch_size=2, in_channels=channels),
        data_preprocessor=dict(type='mmengine.ImgDataPreprocessor') if channels not in (1, 3) else None,
    )
    images = 1000 * torch.rand(2, channels, 8, 8)
    picture = draw_reconstruction(model.eval().reconstruct(images), images)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    if channels != 3:
        assert (picture == picture[..., :1]).all()
    if channels in (2, 13):
        # From the darkest to the brightest of the originals, inside the white lines.
        tile = picture[2:-2, 2 : 2 + 8 * 14]
        assert tile.min() == 0 or tile.max() == 255
