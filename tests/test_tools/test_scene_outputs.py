"""What a test of scenes writes: predictions of scans without labels, submissions, pictures of rooms of one name."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from point_parts import PointwiseSegmentor

from mmmap.registry import MODELS
from mmmap.structures.ply import read_ply
from mmmap.structures.scene_files import write_scene

CONFIG = """
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
default_scope = 'mmengine'
model = dict(
    type='SceneSegmentor',
    segmentor=dict(type='PointwiseStandIn', channels=3, num_classes={classes}),
    test_cfg=dict(crop='block', size=5.0, stride=5.0, num_points=64),
    data_preprocessor=dict(type='PointDataPreprocessor'),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict({dataset}, pipeline=[dict(type='LoadScene'), dict(type='PackPointInputs')]),
)
test_cfg = dict(type='TestLoop')
test_evaluator = dict(type='SceneSegMetric')
default_hooks = dict(visualization=dict(type='PointSegVisualizationHook'))
"""


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A function that gives a config and a checkpoint of a model that tells classes 0 and 3 apart by the height."""
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    MODELS.register_module(name='PointwiseStandIn', module=PointwiseSegmentor, force=True)

    def make(classes, dataset):
        Path('config.py').write_text(CONFIG.format(classes=classes, dataset=dataset))
        segmentor = PointwiseSegmentor(3, classes)
        torch.nn.init.zeros_(segmentor.classifier.weight)
        segmentor.classifier.bias.data = torch.full((classes,), -99.0)
        segmentor.classifier.bias.data[[0, 3]] = torch.tensor([0.0, -10])
        # In units of 5 m: above 1 m it is class 3.
        segmentor.classifier.weight.data[3, 2] = 50
        torch.save(dict(state_dict={f'segmentor.{k}': v for k, v in segmentor.state_dict().items()}), 'trained.pth')
        return 'config.py', 'trained.pth'

    return make


def write(path, number, **arrays):
    xyz = np.random.default_rng(number).uniform(0, (4, 4, 3), (200, 3)).round(3)
    xyz[0, 2] = 0
    xyz[np.abs(xyz[:, 2] - 1) < 0.01, 2] = 2
    write_scene(path, xyz=xyz, **arrays)
    return xyz[:, 2] > 1


def test_scans_without_labels_are_predicted_and_submitted(trained, run_tool, tmp_path):
    high = [write(tmp_path / f'scannet/test/scene070{i}_00.npz', i) for i in range(2)]
    config = trained(20, "type='ScanNetScenes', data_root='scannet', split='test', test_mode=True")
    run_tool('test.py', *config, '--out', 'labels.pkl', '--submission', 'submission', '--work-dir', 'work')
    log = next(Path('work').rglob('*.log')).read_text()
    assert '2 of 2 scenes have no labels (scannet/test/scene0700_00.npz first): there are no scores' in log
    predicted = pickle.loads(Path('labels.pkl').read_bytes())
    for i in range(2):
        assert predicted[i]['lidar_path'] == f'scannet/test/scene070{i}_00.npz'
        assert np.array_equal(predicted[i]['pred_pts_seg']['pts_semantic_mask'], np.where(high[i], 3, 0))
        # NYU40's bed and wall.
        assert np.array_equal(np.loadtxt(f'submission/scene070{i}_00.txt', int), np.where(high[i], 4, 1))
    assert len(list(Path('submission').iterdir())) == 2


def test_rooms_of_one_name_do_not_overwrite_each_other(trained, run_tool, tmp_path):
    high = {f'{part}/Area_{i}': None for part in 'ab' for i in (1, 2)}
    for number, folder in enumerate(high):
        label = np.zeros(200, np.uint8)
        high[folder] = write(tmp_path / folder / 'office_1.npz', number, label=label)
    config = trained(
        13,
        "type='SceneDataset', data_root='.', pattern=('a/*/*.npz', 'b/*/*.npz'), "
        'metainfo=dict(classes=tuple(map(str, range(13))))',
    )
    names = ['Area_1_office_1', 'Area_2_office_1', 'Area_1_office_1_2', 'Area_2_office_1_2']
    paths = [f'{folder}/office_1.npz' for folder in high]
    run_tool('test.py', *config, '--show-dir', 'drawn', '--submission', 'submission', '--work-dir', 'work')
    run_tool('visualization/segment_scenes.py', *config, *paths, '--out', 'tool')
    for folder, name in zip(high, names, strict=True):
        points = np.load(f'{folder}/office_1.npz')['xyz']
        for path in (f'drawn/test_{name}_0.ply', f'tool/{name}.ply'):
            assert np.array_equal(np.stack([read_ply(path)[axis] for axis in 'xyz'], 1), points), path
        for path in (f'drawn/test_{name}_0.ply', f'submission/{name}.ply', f'tool/{name}.ply'):
            assert np.array_equal(read_ply(path)['label'], np.where(high[folder], 3, 0)), path
        assert Path(f'tool/{name}.png').is_file() and Path(f'drawn/test_{name}_0.png').is_file()
