"""The data sets of shapes read small releases in the layouts of the real ones."""

import json
import pickle

import numpy as np
import pytest
from mmengine.dataset import Compose
from raw_shapes import (
    write_coseg,
    write_few_shot,
    write_modelnet,
    write_scanobjectnn,
    write_shapenet55,
    write_shapenetpart,
    write_shrec,
)

from mmmap.datasets import (
    FewShotFold,
    ModelNet40,
    ModelNetFewShot,
    PackPointInputs,
    PointCloudArrays,
    PointsNormalize,
    PointsRotate,
    PointsSample,
    PointsShuffle,
    ScanObjectNN,
    ShapeNet55,
    ShapeNetPart,
)

SHREC = dict(keys=dict(points='points_train', gt_label='labels_train'), classes='classes')
COSEG = dict(
    keys=dict(points='points_test', category='cat_test', pts_semantic_mask='part_test'),
    categories='categories',
    parts_per_category='parts_per_category',
)


def test_shapes_in_one_file(tmp_path):
    path = write_shrec(tmp_path / 'shrec16.npz')
    dataset = PointCloudArrays('shrec16.npz', data_root=str(tmp_path), pipeline=[PackPointInputs()], **SHREC)
    assert len(dataset) == 12 and dataset.metainfo['classes'] == ('alien', 'ants', 'bird')
    sample = dataset[7]
    assert np.array_equal(sample['inputs'].numpy(), np.load(path)['points_train'][7].astype('float32'))
    assert sample['data_samples'].gt_label.item() == 1
    assert sample['data_samples'].lidar_path == f'{path}:points_train[7]'
    # Of a part of the data set the points are still its own.
    part = PointCloudArrays(str(path), indices=[9, 4], pipeline=[], **SHREC)
    assert np.array_equal(part[1]['points'], dataset.arrays['points'][4].astype('float32'))


def test_parts_in_one_file(tmp_path):
    path = write_coseg(tmp_path / 'coseg.npz')
    dataset = PointCloudArrays(str(path), pipeline=[PackPointInputs()], **COSEG)
    assert dataset.metainfo['category_parts'] == ((0, 1, 2), (3, 4))
    assert dataset.metainfo['classes'] == ('chairs 0', 'chairs 1', 'chairs 2', 'vases 0', 'vases 1')
    sample = dataset[3]['data_samples']
    assert sample.category == 1 and set(sample.gt_pts_seg.pts_semantic_mask.tolist()) == {3, 4}


@pytest.mark.parametrize(
    ('changes', 'culprit'),
    [
        (dict(classes='names'), "it has no 'names', but classes, points_train"),
        (dict(keys=dict(points='labels_train')), r'points have the shape \(12,\)'),
        (dict(keys=dict(points='points_train', gt_label='labels_test')), r'labels_test has the shape \(6,\)'),
        (dict(keys=dict(points='points_train', pts_semantic_mask='labels_train')), r'not \(12, 64\)'),
        (dict(keys=dict(gt_label='labels_train')), "does not name the array of 'points'"),
        (dict(keys=dict(points='points_train', label='labels_train')), "keys has the unknown key 'label'"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, culprit):
    path = write_shrec(tmp_path / 'shrec16.npz')
    with pytest.raises(ValueError, match=culprit):
        PointCloudArrays(str(path), **(SHREC | changes))


def test_files_that_are_none(tmp_path):
    path = tmp_path / 'shrec16.npz'
    with pytest.raises(FileNotFoundError, match='shrec16'):
        PointCloudArrays(str(path), **SHREC)
    write_shrec(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r'shrec16.npz is damaged'):
        PointCloudArrays(str(path), **SHREC)
    np.savez(path, points_train=np.zeros((2, 5, 3)), labels_train=np.array([0, 3]), classes=np.array(['a', 'b']))
    with pytest.raises(ValueError, match=r'labels_train: 1 of 2 labels, 3 \(1\), are none of the classes 0 to 1'):
        PointCloudArrays(str(path), **SHREC)


def write_clouds(path, points, **arrays):
    np.savez(path, points=points, **arrays)
    keys = dict(points='points', **{key: key for key in arrays if key in PointCloudArrays.KEYS})
    names = {key: key for key in arrays if key in ('classes', 'categories', 'parts_per_category')}
    return PointCloudArrays(str(path), keys, **names, pipeline=[], max_refetch=0)


@pytest.fixture
def clouds():
    return np.random.default_rng(0).uniform(0, 2, (3, 64, 4))


def test_clouds_in_utm_coordinates(tmp_path, clouds):
    far = clouds + np.array([500_000, 5_000_000, 100, 0])
    normalized = [PointsNormalize()(write_clouds(tmp_path / 'a.npz', points)[1])['points'] for points in (clouds, far)]
    assert normalized[1].dtype == np.float32
    assert np.abs(normalized[1] - normalized[0]).max() < 1e-6
    # Turned before they are centred.
    turned = PointsNormalize()(PointsRotate('z', 90)(write_clouds(tmp_path / 'a.npz', far)[1]))['points'][:, :3]
    assert np.abs(np.linalg.norm(turned, axis=1) - np.linalg.norm(normalized[0][:, :3], axis=1)).max() < 1e-6


@pytest.mark.parametrize(
    ('where', 'value', 'culprit'),
    [
        ((1, 5, 3), np.nan, 'point 5 is not finite'),
        ((1, 7, 0), np.inf, 'point 7 is not finite'),
        (1, 0.5, 'all its 64 points lie in one place'),
    ],
)
def test_points_are_checked_before_anything_is_drawn(tmp_path, clouds, where, value, culprit):
    clouds[where] = value
    dataset = write_clouds(tmp_path / 'a.npz', clouds)
    dataset.pipeline = Compose([PointsShuffle(), PointsSample(32)])
    assert len(dataset[0]['points']) == 32
    with pytest.raises(ValueError, match=rf'a\.npz:points\[1\]: {culprit}'):
        dataset[1]


def test_clouds_without_points(tmp_path):
    with pytest.raises(ValueError, match=r'a\.npz:points\[1\]: it has no points'):
        write_clouds(tmp_path / 'a.npz', np.zeros((2, 0, 3)))[1]
    with pytest.raises(ValueError, match='a cloud has no points'):
        PointsSample(32)(dict(points=np.zeros((0, 3))))


PARTS = dict(category=np.array([0.0, 1, 1]), parts_per_category=np.array([2, 1]), categories=np.array(['a', 'b']))


def test_float_labels_that_are_whole(tmp_path, clouds):
    masks = np.array([[0, 1, 255, 1] * 16, *[[2, 2, 255, 2] * 16] * 2], np.float32)
    sample = write_clouds(tmp_path / 'a.npz', clouds, pts_semantic_mask=masks, **PARTS)[1]
    assert sample['category'] == 1 and isinstance(sample['category'], int)
    assert sample['pts_semantic_mask'].dtype == np.int64 and np.array_equal(sample['pts_semantic_mask'], masks[1])
    assert write_clouds(tmp_path / 'a.npz', clouds, gt_label=np.array([2.0, 0, 1]))[0]['gt_label'] == 2


@pytest.mark.parametrize(
    ('key', 'labels', 'culprit'),
    [
        ('gt_label', [0, 1.7, 1], 'label 1.7 is not a whole number'),
        ('gt_label', [0, np.nan, 1], 'label nan is not a whole number'),
        ('gt_label', [0, -1, 1], r'1 of 3 labels, -1 \(1\), are negative'),
        ('gt_label', ['0', '1', '1'], 'labels are of type <U1'),
        ('category', [0, 1.5, 1], 'label 1.5 is not a whole number'),
        ('category', [0, 2, 1], r'1 of 3 labels, 2 \(1\), are none of the classes 0 to 1'),
        ('pts_semantic_mask', [[-1] * 64] * 3, r'192 of 192 labels, -1 \(192\), are none of the classes 0 to 2'),
        ('pts_semantic_mask', [[0.5] * 64] * 3, 'label 0.5 is not a whole number'),
    ],
)
def test_labels_that_are_none(tmp_path, clouds, key, labels, culprit):
    arrays = {key: np.array(labels)} if key == 'gt_label' else PARTS | {key: np.array(labels)}
    with pytest.raises(ValueError, match=rf'a\.npz: {key}: {culprit}'):
        write_clouds(tmp_path / 'a.npz', clouds, **arrays)


def test_modelnet(tmp_path):
    root = write_modelnet(tmp_path / 'modelnet')
    train, test = (ModelNet40(str(root), split, normals=True, pipeline=[]) for split in ('train', 'test'))
    assert (len(train), len(test)) == (5, 2)
    classes = train.metainfo['classes']
    assert len(classes) == 40 and list(classes) == sorted(classes)
    assert [classes[train[i]['gt_label']] for i in (0, 4)] == ['airplane', 'night_stand']
    sample = train[4]
    expected = np.loadtxt(root / 'night_stand/night_stand_0002.txt', delimiter=',')
    np.testing.assert_allclose(sample['points'], expected, atol=1e-6)
    assert sample['has_normals'] and sample['points'].dtype == np.float32
    assert (root / 'night_stand/night_stand_0002.npy').is_file()
    plain = ModelNet40(str(root), pipeline=[])[4]
    np.testing.assert_allclose(plain['points'], expected[:, :3], atol=1e-6)
    assert not plain['has_normals']


def test_modelnet_that_is_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match='folder not found'):
        ModelNet40(str(tmp_path / 'modelnet'))
    root = write_modelnet(tmp_path / 'modelnet')
    (root / 'xbox/xbox_0001.txt').write_text('1,2,3\n')
    with pytest.raises(ValueError, match=r'xbox_0001.txt has the shape \(1, 3\), not \(N, 6\)'):
        ModelNet40(str(root), 'test', pipeline=[])[1]
    with pytest.raises(ValueError, match=r'xbox_0001.txt has the shape'):
        ModelNet40(str(root), 'test', pipeline=[])[0]
    lines = (root / 'airplane/airplane_0001.txt').read_text().splitlines(keepends=True)
    (root / 'airplane/airplane_0001.txt').write_text(''.join(lines[:20]))
    for index in (0, 4):
        with pytest.raises(ValueError, match=r'airplane_0001.txt.* 20.*: one of the two is cut off'):
            ModelNet40(str(root), pipeline=[])[index]
    (root / 'modelnet40_test.txt').write_text('submarine_0001\n')
    with pytest.raises(ValueError, match='submarine_0001 is not of a class'):
        ModelNet40(str(root), 'test')
    (root / 'modelnet40_test.txt').unlink()
    with pytest.raises(ValueError, match=r'modelnet40_test.txt is missing'):
        ModelNet40(str(root), 'test')
    with pytest.raises(ValueError, match=r"split='val' must be one of \('train', 'test'\)"):
        ModelNet40(str(root), 'val')


@pytest.mark.parametrize('first_label', [0, 7])
def test_folds_of_the_field(tmp_path, first_label):
    root = write_few_shot(tmp_path / 'folds', first_label=first_label)
    train, test = (ModelNetFewShot(5, 10, 0, str(root), split, pipeline=[]) for split in ('train', 'test'))
    assert (len(train), len(test)) == (50, 10)
    assert [train[i]['gt_label'] for i in (0, 10, 49)] == [0, 1, 4]
    assert train[0]['points'].shape == (40, 3)
    assert np.array_equal(test[9]['points'], test.clouds[9][:, :3])


def test_folds_that_are_others(tmp_path):
    root = write_few_shot(tmp_path / 'folds')
    with pytest.raises(ValueError, match=r'1.pkl is missing'):
        ModelNetFewShot(5, 10, 1, str(root))
    (root / '5way_10shot').rename(root / '10way_10shot')
    with pytest.raises(ValueError, match='has 50 training shapes of 5 classes, not 10 of 10 each'):
        ModelNetFewShot(10, 10, 0, str(root))
    (root / '10way_10shot/0.pkl').write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ValueError, match=r"0.pkl lacks 'train' and 'test'"):
        ModelNetFewShot(10, 10, 0, str(root))


def test_folds_by_their_number(tmp_path):
    path = write_shrec(tmp_path / 'shrec16.npz')
    source = dict(type='PointCloudArrays', ann_file=str(path), **SHREC)
    make = lambda fold, split: FewShotFold(source, 2, 1, fold, queries=3, split=split, pipeline=[])  # noqa: E731
    folds = set()
    for fold in range(5):
        train, test = make(fold, 'train'), make(fold, 'test')
        assert [s['gt_label'] for s in train] == [0, 1] and [s['gt_label'] for s in test] == [0] * 3 + [1] * 3
        indices = [[s['index'] for s in part] for part in (train, test)]
        # No shape is trained on and classified.
        assert len({*indices[0], *indices[1]}) == 8
        # Shape i is of class i % 3; all of a label are of one class, the one that it is called.
        for part in (train, test):
            for s in part:
                assert train.metainfo['classes'][s['gt_label']] == ('alien', 'ants', 'bird')[s['index'] % 3]
                assert np.array_equal(s['points'], np.load(path)['points_train'][s['index']].astype('float32'))
        assert indices == [[s['index'] for s in make(fold, split)] for split in ('train', 'test')]
        folds.add(tuple(indices[0]))
    assert len(folds) > 2


def test_folds_that_make_no_sense(tmp_path):
    source = dict(type='PointCloudArrays', ann_file=str(write_shrec(tmp_path / 'shrec16.npz')), **SHREC)
    with pytest.raises(ValueError, match='0 classes have 21 shapes, way=2 are needed'):
        FewShotFold(source, 2, 1, 0)
    with pytest.raises(ValueError, match='way=0'):
        FewShotFold(source, 0, 1, 0)
    with pytest.raises(ValueError, match='set the pipeline of FewShotFold'):
        FewShotFold(source | dict(pipeline=[dict(type='PointsShuffle')]), 2, 1, 0, queries=1)
    with pytest.raises(ValueError, match='have no gt_label'):
        FewShotFold(source | dict(keys=dict(points='points_train')), 2, 1, 0, queries=1)


@pytest.mark.parametrize('variant', ['obj_bg', 'obj_only', 'pb_t50_rs'])
def test_scanobjectnn(tmp_path, variant):
    h5py = pytest.importorskip('h5py')
    root = write_scanobjectnn(tmp_path / 'scans')
    train, test = (ScanObjectNN(str(root), variant, split, pipeline=[]) for split in ('train', 'test'))
    assert (len(train), len(test)) == (4, 3) and len(train.metainfo['classes']) == 15
    assert train[2]['gt_label'] == 2 and train[2]['points'].shape == (40, 3)
    path = train[2]['lidar_path'].rpartition('[')[0]
    assert ('nobg' in path, 'augmentedrot' in path) == (variant == 'obj_only', variant == 'pb_t50_rs')
    with h5py.File(path) as file:
        assert np.array_equal(train[2]['points'], file['data'][2])


def test_scanobjectnn_that_is_damaged(tmp_path):
    pytest.importorskip('h5py')
    root = write_scanobjectnn(tmp_path / 'scans')
    path = root / 'main_split/test_objectdataset.h5'
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r'test_objectdataset.h5 is cut off'):
        ScanObjectNN(str(root), 'obj_bg', 'test')
    path.unlink()
    with pytest.raises(ValueError, match=r'test_objectdataset.h5 is missing'):
        ScanObjectNN(str(root), 'obj_bg', 'test')


@pytest.mark.parametrize(
    ('labels', 'culprit'),
    [
        ([0, 1.5, 2], 'label 1.5 is not a whole number'),
        ([0, -1, 15], r'2 of 3 labels, -1 \(1\), 15 \(1\), are none of'),
    ],
)
def test_labels_of_scanobjectnn_that_are_none(tmp_path, labels, culprit):
    h5py = pytest.importorskip('h5py')
    root = write_scanobjectnn(tmp_path / 'scans')
    with h5py.File(root / 'main_split/test_objectdataset.h5', 'r+') as file:
        del file['label']
        file['label'] = np.array(labels)
    with pytest.raises(ValueError, match=rf'test_objectdataset\.h5: label: {culprit}'):
        ScanObjectNN(str(root), 'obj_bg', 'test')


def test_scanobjectnn_without_h5py(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'h5py', None)
    with pytest.raises(ImportError, match='pip install h5py'):
        ScanObjectNN(str(tmp_path))


def test_shapenet55(tmp_path):
    root = write_shapenet55(tmp_path / 'shapenet')
    assert [len(ShapeNet55(str(root), split, pipeline=[])) for split in ('train', 'test', 'all')] == [3, 2, 5]
    sample = ShapeNet55(str(root), pipeline=[])[1]
    assert np.array_equal(sample['points'], np.load(root / 'shapenet_pc/02691156-train1.npy'))
    (root / 'shapenet_pc/02691156-train1.npy').write_bytes(b'')
    with pytest.raises(ValueError, match=r'02691156-train1.npy is cut off'):
        ShapeNet55(str(root), pipeline=[])[1]


def test_shapenetpart(tmp_path):
    root = write_shapenetpart(tmp_path / 'parts')
    splits = ('train', 'val', 'trainval', 'test')
    assert [len(ShapeNetPart(str(root), split, pipeline=[])) for split in splits] == [3, 1, 4, 2]
    dataset = ShapeNetPart(str(root), 'test', normals=True, pipeline=[])
    assert len(dataset.metainfo['classes']) == 50
    # The part labels of the release: a mug is 36 and 37, a table 47 to 49.
    parts = dict(zip(dataset.metainfo['categories'], dataset.metainfo['category_parts'], strict=True))
    assert (parts['Mug'], parts['Table'], parts['Motorbike']) == ((36, 37), (47, 48, 49), tuple(range(30, 36)))
    sample = dataset[1]
    assert dataset.metainfo['categories'][sample['category']] == 'Mug'
    assert sample['points'].shape == (30, 6) and sample['has_normals']
    assert set(sample['pts_semantic_mask'].tolist()) == {36, 37}
    packed = PackPointInputs()(ShapeNetPart(str(root), 'test', pipeline=[])[1])
    assert packed['inputs'].shape == (30, 3)


@pytest.mark.parametrize(
    ('break_it', 'culprit'),
    [
        (lambda root: (root / 'synsetoffset2category.txt').unlink(), r'synsetoffset2category.txt is missing'),
        (lambda root: (root / 'synsetoffset2category.txt').write_text('Boat\t1\n'), "'Boat' is not a category"),
        (
            lambda root: (root / 'train_test_split/shuffled_test_file_list.json').write_text('["a'),
            r'shuffled_test_file_list.json is cut off',
        ),
        (
            lambda root: (root / 'train_test_split/shuffled_test_file_list.json').write_text(json.dumps(['s/0/a'])),
            "shapes of the unknown category '0'",
        ),
        (
            lambda root: np.savetxt(root / '03797390/test0.txt', np.ones((4, 7))),
            r'parts from 1 to 1, not of \(36, 37\)',
        ),
        (
            lambda root: np.savetxt(root / '03797390/test0.txt', np.full((4, 7), 36.5)),
            r'test0.txt: label 36.5 is not a whole number',
        ),
        (lambda root: (root / '03797390/test0.txt').unlink(), r'test0.txt is missing'),
    ],
)
def test_shapenetpart_that_is_damaged(tmp_path, break_it, culprit):
    root = write_shapenetpart(tmp_path / 'parts')
    break_it(root)
    with pytest.raises(ValueError, match=culprit):
        ShapeNetPart(str(root), 'test', pipeline=[])[1]


@pytest.mark.parametrize(
    ('arrays', 'culprit'),
    [
        (
            dict(PARTS, pts_semantic_mask=np.full((3, 64), 2)),
            r'mask\[0\] has the part 2, .* 0 has \(0, 1\)',
        ),
        (
            dict(category=np.array([0, 1, 2]), parts_per_category=PARTS['parts_per_category']),
            r'2 \(1\), are none of .* 0 to 1',
        ),
        (dict(PARTS, categories=np.array(['a', 'b', 'c'])), '3 categories, but the parts of 2'),
    ],
)
def test_parts_and_categories_that_do_not_fit(tmp_path, clouds, arrays, culprit):
    with pytest.raises(ValueError, match=rf'a\.npz: .*{culprit}'):
        write_clouds(tmp_path / 'a.npz', clouds, **arrays)


def test_files_without_clouds_or_that_are_damaged(tmp_path, clouds):
    with pytest.raises(ValueError, match=r'a\.npz: points has no clouds'):
        write_clouds(tmp_path / 'a.npz', clouds[:0])
    np.savez_compressed(tmp_path / 'b.npz', points=clouds)
    content = bytearray((tmp_path / 'b.npz').read_bytes())
    content[60:80] = b'\xff' * 20
    (tmp_path / 'b.npz').write_bytes(content)
    with pytest.raises(ValueError, match=r'b\.npz is damaged'):
        PointCloudArrays(str(tmp_path / 'b.npz'), dict(points='points'))
