"""The data sets of scenes in configs/_base_ give what their configs say, on generated scenes."""

import numpy as np
import pytest
from config_cases import ROOT
from mmengine.config import Config
from raw_scenes import write_tiles

from mmmap.models.segmentors import SceneTestCfg
from mmmap.registry import DATASETS
from mmmap.structures.scene_files import write_scene


def write_room(path, classes):
    rng = np.random.default_rng(0)
    write_scene(
        path,
        xyz=rng.uniform(0, 3, (600, 3)).astype(np.float32),
        rgb=rng.integers(0, 256, (600, 3)).astype(np.uint8),
        label=rng.integers(0, classes, 600).astype(np.uint8),
    )


def write_s3dis(root):
    for area in range(1, 7):
        write_room(root / f'Area_{area}' / 'office_1.npz', 13)


def write_scannet(root):
    for split in ('train', 'val'):
        write_room(root / split / 'scene0000_00.npz', 20)


CASES = {
    's3dis_block_bs16_seg': write_s3dis,
    'scannet_sphere_bs16_seg': write_scannet,
    'lidar-tiles_block_bs8_seg': write_tiles,
}


@pytest.mark.parametrize('name', CASES)
def test_crops_and_scenes(tmp_path, name):
    CASES[name](tmp_path)
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets' / f'{name}.py')
    samples = []
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(tmp_path)
        dataset = DATASETS.build(loader.dataset)
        samples.append(dataset[0])
    assert len(dataset.metainfo['classes']) == len(dataset.metainfo['palette']) == cfg.num_classes
    test_cfg = SceneTestCfg(**cfg.scene_test_cfg)
    crop, scene = samples
    assert crop['inputs'].shape == (test_cfg.num_points, cfg.in_channels)
    assert scene['inputs'].shape[1] == cfg.in_channels
    labels = scene['data_samples'].gt_pts_seg.pts_semantic_mask
    assert set(labels.tolist()) <= {*range(cfg.num_classes), 255}
    # Training and test cut alike.
    cut = next(step for step in cfg.train_pipeline if step.type == 'SceneCrop')
    assert (cut.crop, cut.size, cut.num_points) == (test_cfg.crop, test_cfg.size, test_cfg.num_points)
    voxels = [step.voxel_size for step in cfg.train_pipeline if step.type == 'VoxelSample']
    assert voxels == ([] if test_cfg.voxel_size is None else [test_cfg.voxel_size])
    # Features are within the range of coordinates, whatever their units were.
    assert crop['inputs'].abs().max() < 20
