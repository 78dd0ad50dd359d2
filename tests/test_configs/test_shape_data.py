"""The data sets of shapes in configs/_base_ give what their configs say, on small releases, in votes too."""

import pytest
import torch
from config_cases import ROOT
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from raw_shapes import (
    write_coseg,
    write_few_shot,
    write_modelnet,
    write_scanobjectnn,
    write_shapenet55,
    write_shapenetpart,
    write_shrec,
)

from mmmap.models import PointDataPreprocessor
from mmmap.structures import PointDataSample

# How the release is written, and how many points a training sample has.
CASES = {
    'shrec16_bs32_map': (lambda root: write_shrec(root / 'shrec16.npz', 2048), 1024),
    'shrec16_bs32_cls': (lambda root: write_shrec(root / 'shrec16.npz', 2048), 1024),
    'coseg-human_bs16_part': (lambda root: write_coseg(root / 'coseg_human_part.npz'), 64),
    'modelnet40_bs32_cls': (lambda root: write_modelnet(root, 1300), 1024),
    'modelnet40-fewshot_bs32_cls': (lambda root: write_few_shot(root, count=1300), 1024),
    'scanobjectnn_bs32_cls': (write_scanobjectnn, 40),
    'shapenet55_bs128_map': (lambda root: write_shapenet55(root, 1300), 1024),
    'shapenetpart_bs16_part': (write_shapenetpart, 2048),
}


@pytest.fixture
def scope():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield


@pytest.mark.parametrize('name', CASES)
def test_samples(tmp_path, scope, name):
    if name.startswith('scanobjectnn'):
        pytest.importorskip('h5py')
    write, num_points = CASES[name]
    write(tmp_path / 'data')
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets' / f'{name}.py')
    assert cfg.train_dataloader.batch_size == int(name.split('_bs')[1].split('_')[0])
    settings = [cfg.train_dataloader.dataset]
    if not name.endswith('map'):
        settings += [cfg.val_dataloader.dataset]
    if cfg.get('tta_pipeline'):
        settings += [dict(cfg.test_dataloader.dataset, pipeline=cfg.tta_pipeline)]
    datasets = [DATASETS.build(dict(setting, data_root=str(tmp_path / 'data'))) for setting in settings]
    train = datasets[0][0]
    assert train['inputs'].shape == (num_points, 3)
    # Another sample at each time, the same in a test.
    assert not torch.equal(datasets[0][0]['inputs'], train['inputs'])
    if name.endswith('map'):
        assert 'gt_label' not in train['data_samples']
        return
    # A base of parts has several categories; the generated ones are fewer than those of the config.
    if name.endswith('part'):
        assert isinstance(train['data_samples'], PointDataSample) and 'category' in train['data_samples']
        parts = datasets[0].metainfo['category_parts']
        if name.startswith('shapenetpart'):
            assert parts == cfg.category_parts
        assert cfg.num_classes == sum(map(len, cfg.category_parts)) and cfg.num_categories == len(cfg.category_parts)
    else:
        assert train['data_samples'].gt_label.item() == 0
    assert torch.equal(datasets[1][0]['inputs'], datasets[1][0]['inputs'])
    assert datasets[1][0]['inputs'].norm(dim=1).max() <= 1 + 1e-5
    if cfg.get('tta_pipeline'):
        votes = datasets[2][0]
        assert len(votes['inputs']) == len(votes['data_samples']) == 10
        assert not torch.equal(votes['inputs'][0], votes['inputs'][1])
        batch = pseudo_collate([votes])
        for index in range(10):
            inputs = PointDataPreprocessor()({key: value[index] for key, value in batch.items()})['inputs']
            assert inputs.shape[0] == 1 and inputs.shape[2] == 3
