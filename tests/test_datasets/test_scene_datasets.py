"""Data sets and transforms of scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from raw_scenes import write_tiles

from mmmap.datasets import (
    LoadScene,
    PackPointInputs,
    PointFeatureNormalize,
    PointsColorAutoContrast,
    PointsColorDrop,
    PointsColorJitter,
    S3DISScenes,
    ScanNetScenes,
    SceneCrop,
    SceneDataset,
    SceneFeatures,
    VoxelSample,
)
from mmmap.models import PointDataPreprocessor
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import write_scene

UTM = np.array([500_000, 5_000_000, 0])
CLASSES = dict(classes=('ground', 'low', 'medium', 'high', 'building', 'other'))


@pytest.fixture(autouse=True)
def numpy_seed():
    np.random.seed(0)


@pytest.fixture
def tiles(tmp_path):
    return write_tiles(tmp_path / 'tiles')


@pytest.fixture
def room():
    """A sample of a room of 4 x 4 x 3 m with colours; 1 in 10 points is of class 1, in a corner."""
    rng = np.random.default_rng(0)
    xyz = rng.uniform(0, (4, 4, 3), (5000, 3))
    xyz[:500] = rng.uniform(0, 0.5, (500, 3))
    xyz[0] = 0
    points = np.concatenate([xyz, rng.integers(20, 200, (5000, 3))], axis=1).astype(np.float32)
    labels = (np.arange(5000) < 500).astype(np.int64)
    labels[-100:] = 255
    return dict(points=points, pts_semantic_mask=labels, feature_columns=dict(rgb=(3, 6)))


def test_labels_of_tiles_become_classes(tiles):
    dataset = SceneDataset(
        str(tiles),
        'train_*.npz',
        class_labels=(1, 2, 3, 4, 5, 6),
        metainfo=CLASSES,
        pipeline=[LoadScene(features=('intensity',), in_memory=True)],
    )
    assert len(dataset) == 2
    sample, raw = dataset[0], np.load(tiles / 'train_77050.npz')
    assert sample['points'].shape == (900, 4) and sample['points'].dtype == np.float32
    assert np.allclose(sample['points'][:, :3], raw['xyz'] - raw['xyz'].min(0), atol=1e-5)
    assert np.array_equal(sample['points'][:, 3], raw['intensity'])
    assert np.array_equal(sample['pts_semantic_mask'], np.where(raw['label'] == 0, 255, raw['label'].astype(int) - 1))
    # What is kept in memory is not what the next transforms change.
    sample['points'][:] = 0
    assert np.array_equal(dataset[0]['points'][:, 3], raw['intensity'])


def write_room(folder, label, **arrays):
    rng = np.random.default_rng(0)
    write_scene(folder / 'room.npz', xyz=rng.uniform(0, 4, (len(label), 3)), label=np.asarray(label), **arrays)


@pytest.mark.parametrize(
    ('labels', 'arguments', 'expected'),
    [
        ([-1, 0, 5, 7], dict(class_labels=(0, 5, 6, 7, 8, 9)), [255, 0, 1, 3]),
        ([0.0, 5.0, 255.0], {}, [0, 5, 255]),
        ([-1, 0, 6, 300], dict(unknown_labels='ignore'), [255, 0, 255, 255]),
        ([0, 3, 255], dict(class_labels=range(6), unknown_labels='error'), [0, 3, 255]),
    ],
)
def test_labels_by_the_words_of_a_config(tmp_path, labels, arguments, expected):
    write_room(tmp_path, labels)
    dataset = SceneDataset(str(tmp_path), metainfo=CLASSES, pipeline=[LoadScene()], **arguments)
    assert dataset[0]['pts_semantic_mask'].tolist() == expected


@pytest.mark.parametrize(
    ('labels', 'arguments', 'culprit'),
    [
        ([-1, 0, 5], {}, r'1 of 3 labels, -1 \(1\), are none of'),
        ([6, 0, 6], {}, r'2 of 3 labels, 6 \(2\), are none of \[0, 1, 2, 3, 4, 5\]'),
        ([1, 2, 0], dict(class_labels=range(1, 7), unknown_labels='error'), r'1 of 3 labels, 0 \(1\)'),
        ([0, 0.5], dict(class_labels=range(6)), 'label 0.5 is not a whole number'),
        ([0, np.nan], dict(unknown_labels='ignore'), 'label nan is not a whole number'),
        ([-1, 0], dict(metainfo={}), r'1 of 2 labels, -1 \(1\)'),
    ],
)
def test_labels_that_are_none(tmp_path, labels, arguments, culprit):
    write_room(tmp_path, labels)
    dataset = SceneDataset(str(tmp_path), **(dict(metainfo=CLASSES, pipeline=[LoadScene()], max_refetch=0) | arguments))
    with pytest.raises(ValueError, match=rf'room\.npz: label: {culprit}'):
        dataset[0]


def test_class_labels_that_make_no_sense(tiles):
    with pytest.raises(ValueError, match=r'class_labels=\(1, 1, 2, 3, 4, 5\) has a label twice'):
        SceneDataset(str(tiles), class_labels=(1, 1, 2, 3, 4, 5), metainfo=CLASSES)
    with pytest.raises(ValueError, match="unknown_labels='drop' must be 'ignore' or 'error'"):
        SceneDataset(str(tiles), unknown_labels='drop')
    with pytest.raises(ValueError, match='256 classes, but at most 255 are possible'):
        SceneDataset(str(tiles), metainfo=dict(classes=list(map(str, range(256)))))


def test_scenes_of_other_formats(tmp_path):
    xyz = np.random.default_rng(0).uniform(0, 4, (90, 3)) + UTM
    write_ply(tmp_path / 'a.ply', xyz, label=np.zeros(90, np.uint8))
    dataset = SceneDataset(str(tmp_path), '*.ply', metainfo=CLASSES, crops=3, pipeline=[LoadScene()])
    assert len(dataset) == 3
    assert dataset[0]['points'].dtype == np.float32
    np.testing.assert_allclose(dataset[0]['points'], xyz - xyz.min(0), atol=1e-6)


def test_a_stray_point_moves_no_other(tmp_path):
    xyz = np.random.default_rng(0).uniform(0, 50, (900, 3)) + UTM
    xyz[7] = 0
    write_scene(tmp_path / 'a.npz', xyz=xyz, intensity=np.arange(900))
    load = LoadScene(features=('intensity',))
    scene = load(dict(lidar_path=str(tmp_path / 'a.npz')))
    assert np.array_equal(scene['points'][:, 3], np.arange(900))
    # Wherever the origin is; of the stray point a metre does not count.
    others, batch = np.arange(900) != 7, PointDataPreprocessor()(pseudo_collate([PackPointInputs()(dict(scene))]))
    for points in (scene['points'], batch['inputs'][0].numpy()):
        assert np.abs((points[:, :3] - points[0, :3]) - (xyz - xyz[0]))[others].max() < 1e-3
        assert np.abs((points[7, :3] - points[0, :3]) - (xyz[7] - xyz[0])).max() < 1
    crop = SceneCrop('block', 20.0, 64)(SceneFeatures(('height',))(scene))
    packed = PackPointInputs()(crop)
    assert packed['inputs'].dtype == torch.float32
    by_index = {int(row[3]): row[:3] for row in packed['inputs'].numpy()}
    assert len(by_index) > 1
    first, *others = by_index
    for index in others:
        offset = 20 * (by_index[index] - by_index[first])
        assert np.abs(offset - (xyz[index] - xyz[first])).max() < 1e-3


def test_points_and_colours_are_checked_when_a_scene_is_read(tmp_path):
    xyz = np.random.default_rng(0).uniform(0, 4, (9, 3))
    path = str(tmp_path / 'a.npz')
    sample = lambda: dict(lidar_path=path)  # noqa: E731
    write_scene(path, xyz=xyz, rgb=xyz / 4, intensity=np.where(np.arange(9) == 5, np.nan, 1))
    with pytest.raises(ValueError, match=r'a\.npz: rgb goes up to'):
        LoadScene(features=('rgb',))(sample())
    assert LoadScene()(sample())['points'].shape == (9, 3)
    scaled = LoadScene(features=('rgb',), rgb_max=1)(sample())['points'][:, 3:]
    assert np.allclose(scaled, 255 * xyz / 4)
    with pytest.raises(ValueError, match=r'a\.npz: xyz, intensity: point 5 is not finite'):
        LoadScene(features=('intensity',))(sample())
    write_scene(path, xyz=np.where(np.arange(9)[:, None] == 4, np.inf, xyz), name=np.array(['a'] * 9))
    with pytest.raises(ValueError, match=r'a\.npz: point 4 is not finite'):
        LoadScene()(sample())
    write_scene(path, xyz=np.ones((9, 3)), name=np.array(['a'] * 9))
    with pytest.raises(ValueError, match=r'a\.npz: xyz: all its 9 points lie in one place'):
        LoadScene()(sample())
    with pytest.raises(ValueError, match=r'a\.npz: its array name is of type <U1'):
        LoadScene(features=('name',))(sample())


def test_larger_scenes_have_more_crops(tmp_path):
    for name, count in (('a', 900), ('b', 90), ('c', 10)):
        write_scene(tmp_path / f'{name}.npz', xyz=np.zeros((count, 3), np.float32))
    dataset = SceneDataset(str(tmp_path), crops=20)
    names = [dataset.get_data_info(i)['lidar_path'][-5] for i in range(len(dataset))]
    assert [names.count(name) for name in 'abc'] == [18, 2, 1]


def test_folds_of_s3dis(tmp_path):
    for area in range(1, 7):
        write_scene(tmp_path / f'Area_{area}' / 'office_1.npz', xyz=np.zeros((4, 3), np.float32))
    for area in range(1, 7):
        parts = [S3DISScenes(str(tmp_path), test_area=area, test_mode=mode) for mode in (False, True)]
        names = [[part.get_data_info(i)['lidar_path'] for i in range(len(part))] for part in parts]
        assert len(names[0]) == 5 and len(names[1]) == 1
        assert f'Area_{area}/' in names[1][0]
    assert len(parts[0].metainfo['classes']) == len(parts[0].metainfo['palette']) == 13
    with pytest.raises(ValueError, match='areas 1 to 6, got test_area=7'):
        S3DISScenes(str(tmp_path), test_area=7)


def test_the_classes_of_scannet():
    assert len(ScanNetScenes.NYU40_IDS) == len(ScanNetScenes.METAINFO['classes']) == 20
    assert len(ScanNetScenes.METAINFO['palette']) == 20
    assert dict(zip(ScanNetScenes.METAINFO['classes'], ScanNetScenes.NYU40_IDS, strict=True))['sink'] == 34


def test_what_is_missing_is_named(tiles):
    with pytest.raises(FileNotFoundError, match=r'no scene val_\*\.npz in .*tiles'):
        SceneDataset(str(tiles), 'val_*.npz')
    with pytest.raises(ValueError, match='3 class_labels for 6 classes: give as many in metainfo'):
        SceneDataset(str(tiles), class_labels=(1, 2, 3), metainfo=CLASSES)
    with pytest.raises(TypeError, match='patern'):
        SceneDataset(str(tiles), patern='*.npz')
    with pytest.raises(ValueError, match=r"test_77060\.npz has no 'rgb', but xyz, label, intensity"):
        SceneDataset(str(tiles), 'test_*.npz', pipeline=[LoadScene(features=('rgb',))], test_mode=True)[0]
    with pytest.raises(ValueError, match="'train', 'val' and 'test', got 'valid'"):
        ScanNetScenes(str(tiles), split='valid')


def test_the_nine_channels(room):
    colours = room['points'][:, 3:].copy()
    sample = PointFeatureNormalize('rgb')(SceneFeatures(('position', 'height'))(room))
    assert sample['points'].shape == (5000, 10)
    assert sample['feature_columns'] == dict(rgb=(3, 6), position=(6, 9), height=(9, 10))
    points = sample['points']
    assert np.allclose(points[:, 3:6], colours / 255, atol=1e-6)
    assert np.allclose(points[:, 6:9], points[:, :3] / points[:, :3].max(0), atol=1e-6)
    assert np.array_equal(points[:, 9], points[:, 2])
    with pytest.raises(ValueError, match="no feature 'intensity', but rgb, position, height"):
        PointFeatureNormalize('intensity')(sample)
    with pytest.raises(ValueError, match="not 'normal'"):
        SceneFeatures(('normal',))


def test_colours(room):
    before = room['points'].copy()
    sample = PointsColorAutoContrast(prob=1)(dict(room, points=before.copy()))
    change = sample['points'][:, 3:] - before[:, 3:]
    low, high = before[:, 3:].min(0), before[:, 3:].max(0)
    stretched = (before[:, 3:] - low) * 255 / (high - low)
    # One weight for all points and channels.
    weight = (change / (stretched - before[:, 3:]))[np.abs(stretched - before[:, 3:]) > 5]
    assert weight.min() > 0 and np.ptp(weight) < 1e-3 and weight.max() < 1
    assert not PointsColorDrop(prob=1)(dict(room, points=before.copy()))['points'][:, 3:].any()
    jittered = PointsColorJitter(std=10.0, prob=1)(dict(room, points=before.copy()))['points']
    noise = jittered[:, 3:] - before[:, 3:]
    assert abs(noise.std() - 10) < 0.5 and abs(noise.mean()) < 0.5
    for transform in (PointsColorAutoContrast(0), PointsColorDrop(0), PointsColorJitter(prob=0)):
        assert np.array_equal(transform(dict(room, points=before.copy()))['points'], before)
    assert np.array_equal(jittered[:, :3], before[:, :3])
    with pytest.raises(ValueError, match='PointsColorDrop: prob=2'):
        PointsColorDrop(2)


def test_one_point_of_each_voxel(room):
    before = {tuple(row): label for row, label in zip(room['points'], room['pts_semantic_mask'], strict=True)}
    sample = VoxelSample(0.3)(room)
    cells = [tuple(cell) for cell in np.floor(sample['points'][:, :3] / 0.3).astype(int)]
    assert len(set(cells)) == len(cells)
    assert {tuple(cell) for cell in np.floor(np.array(list(before))[:, :3] / np.float32(0.3)).astype(int)} == set(cells)
    kept = zip(sample['points'], sample['pts_semantic_mask'], strict=True)
    assert all(before[tuple(row)] == label for row, label in kept)


@pytest.mark.parametrize(('crop', 'size'), [('block', 1.0), ('sphere', 0.8)])
@pytest.mark.parametrize('num_points', [64, 4000])
def test_a_crop_is_in_its_frame(room, crop, size, num_points):
    original, labels = room['points'].copy(), room['pts_semantic_mask'].copy()
    sample = SceneCrop(crop, size, num_points)(room)
    points = sample['points']
    assert points.shape == (num_points, 6) and sample['pts_semantic_mask'].shape == (num_points,)
    if crop == 'block':
        assert np.abs(points[:, :2]).max() <= 0.5 + 1e-5
        assert points[:, 2].min() >= 0
    else:
        assert np.linalg.norm(points[:, :3], axis=1).max() <= 1 + 1e-5
    # Points are found again by their colours and z, with their labels.
    distances = np.abs(points[:32, None, 3:] - original[None, :, 3:]).sum(-1)
    for point, label, row in zip(points[:32], sample['pts_semantic_mask'][:32], distances, strict=True):
        candidates = np.flatnonzero(row == 0)
        assert label in labels[candidates]
        if crop == 'block':
            assert np.abs(original[candidates, 2] - size * point[2]).min() < 1e-4


def test_balanced_centres(room):
    def share(centre):
        crops = [SceneCrop('sphere', 0.4, 32, centre)(dict(room)) for _ in range(60)]
        return np.mean([(crop['pts_semantic_mask'] == 1).mean() for crop in crops])

    # A tenth of the points, but one of two classes.
    assert share('uniform') < 0.25 < 0.4 < share('balanced')
    with pytest.raises(ValueError, match=r'bare\.npz has no labels'):
        SceneCrop('block', 1.0, 8, 'balanced')(dict(points=np.random.rand(9, 3), lidar_path='bare.npz'))


@pytest.mark.parametrize(
    ('options', 'culprit'),
    [
        (dict(crop='cube'), "crop must be 'block' or 'sphere', got 'cube'"),
        (dict(centre='random'), "centre must be 'uniform' or 'balanced', got 'random'"),
        (dict(size=0), 'size=0, num_points=8: both must be positive'),
    ],
)
def test_options_that_make_no_sense(options, culprit):
    with pytest.raises(ValueError, match=culprit):
        SceneCrop(**(dict(crop='block', size=1.0, num_points=8) | options))


@pytest.mark.parametrize('stray', [(0, 0, 0), (500010, 5000010, -3000), (1e30, -1e30, 1e30)])
def test_a_stray_point_changes_nothing_for_the_others(tmp_path, stray):
    """A tile in UTM with a point at its origin, or far below, or anywhere: from the file to a crop."""
    rng = np.random.default_rng(0)
    tile = rng.uniform((500000, 5000000, 120), (500050, 5000050, 130), (3000, 3))
    label = rng.integers(0, 3, 3000).astype(np.uint8)
    write_scene(tmp_path / 'a.npz', xyz=tile, label=label)
    write_scene(tmp_path / 'b.npz', xyz=np.concatenate([tile, [stray]]), label=np.append(label, 0).astype(np.uint8))
    load = [LoadScene(), SceneFeatures(('height', 'position'))]
    alone, together = (
        SceneDataset(str(tmp_path), f'{name}.npz', pipeline=load)[0]['points'].astype(np.float64) for name in 'ab'
    )
    assert np.abs(alone[:, :3] - (tile - tile.min(0))).max() < 1e-3
    assert np.abs(together[:3000] - alone).max() < 1e-5
    assert together[3000, 3:].tolist() == [0, 0, 0, 0]
    # Crops of both around the same point.
    crops = []
    for name in 'ab':
        np.random.seed(3)
        sample = SceneDataset(str(tmp_path), f'{name}.npz', pipeline=load)[0]
        sample['pts_semantic_mask'][:] = 255
        sample['pts_semantic_mask'][17] = 1
        crops.append(SceneCrop('block', 12.0, 256, 'balanced')(sample)['points'])
        assert crops[-1].dtype == np.float32
    assert np.abs(crops[0] - crops[1]).max() < 1e-5


def test_a_crop_is_of_one_island(room):
    """Its floor is that of the island, and what hangs 900 m over it is in none of its crops."""
    over = room['points'].copy()
    over[:, 2] += 900
    both = np.concatenate([room['points'], over])
    labels = np.repeat([1, 255], 5000)
    for island, centres in (([0, 3], labels), ([0, 3], labels[::-1])):
        crop = SceneCrop('block', 1.0, 128, 'balanced')(dict(points=both.copy(), pts_semantic_mask=centres.copy()))
        z = crop['points'][:, 2]
        assert island[0] - 1e-4 <= z.min() and z.max() <= island[1] + 1e-4
        assert (crop['pts_semantic_mask'] == 1).all()


def test_a_scene_counts_once_and_hidden_files_do_not(tiles):
    (tiles / '._train_b.npz').write_bytes(b'of macOS')
    dataset = SceneDataset(str(tiles), ['train_*.npz', '*.npz'], pipeline=[])
    names = [Path(dataset.get_data_info(i)['lidar_path']).name for i in range(len(dataset))]
    assert len(names) == len(set(names)) and names[0].startswith('train_') and '._train_b.npz' not in names
    assert set(names) == {path.name for path in tiles.glob('[!.]*.npz')}
