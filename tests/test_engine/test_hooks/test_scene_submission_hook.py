"""What a submission of scenes holds, and what is refused before the test begins."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset

from mmmap.datasets import S3DISScenes, ScanNetScenes, SceneDataset
from mmmap.engine.hooks import SceneSubmissionHook
from mmmap.structures import PointDataSample
from mmmap.structures.ply import read_ply
from mmmap.structures.scene_files import write_scene
from mmmap.utils.errors import UserError

XYZ = np.array([[500000.125, 5000000.25, 1], [500001, 5000001, 2], [500002, 5000002, 3.0]])


@pytest.fixture
def submit(tmp_path):
    """A function that tests a data set, each scene predicted as the classes given, and gives what is written."""

    def run(dataset, prediction):
        runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
        hook = SceneSubmissionHook(str(tmp_path / 'out'))
        hook.before_test(runner)
        for i in range(len(dataset)):
            sample = PointDataSample(metainfo=dict(lidar_path=dataset.get_data_info(i)['lidar_path']))
            scores = torch.nn.functional.one_hot(torch.tensor(prediction), 20).float()
            hook.after_test_iter(runner, i, None, [sample.set_pred_pts_seg(scores)])
        hook.after_test(runner)
        return sorted((tmp_path / 'out').iterdir())

    return run


def scenes(tmp_path, *names):
    for name in names:
        write_scene(tmp_path / name, xyz=XYZ, rgb=np.zeros((3, 3), np.uint8))
    return str(tmp_path)


def test_scannet_takes_a_label_of_nyu40_a_line(tmp_path, submit):
    root = scenes(tmp_path, 'test/scene0707_00.npz', 'test/scene0708_00.npz')
    files = submit(ScanNetScenes(root, split='test'), [0, 19, 12])
    assert [file.name for file in files] == ['scene0707_00.txt', 'scene0708_00.txt']
    # wall, otherfurniture and desk.
    assert files[0].read_text() == '1\n39\n14\n'


def test_rooms_of_one_name_in_two_areas(tmp_path, submit):
    root = scenes(tmp_path, *(f'Area_{i}/office_1.npz' for i in range(1, 7)))
    files = submit(S3DISScenes(root, test_area=5), [3, 12, 0])
    assert [file.name for file in files] == [f'Area_{i}_office_1.ply' for i in (1, 2, 3, 4, 6)]
    vertices = read_ply(files[0])
    assert vertices['label'].tolist() == [3, 12, 0]
    # As precise as the scene.
    assert np.array_equal(np.stack([vertices[axis] for axis in 'xyz'], axis=1), XYZ)


def test_labels_are_those_of_the_files(tmp_path, submit):
    root = scenes(tmp_path, 'a/tile.npz')
    dataset = SceneDataset(root, 'a/*.npz', class_labels=(300, 2, 70), metainfo=dict(classes=('x', 'y', 'z')))
    assert read_ply(submit(dataset, [2, 0, 1])[0])['label'].tolist() == [70, 300, 2]


def test_what_is_refused(tmp_path, submit):
    root = scenes(tmp_path, 'test/scene.npz', 'val/scene.npz')
    both = ConcatDataset([ScanNetScenes(root, split=split) for split in ('val', 'test')])
    with pytest.raises(UserError, match=r'two scenes would have the file scene\.txt: .*val/scene.npz and .*test/scene'):
        submit(both, [0, 0, 0])
    with pytest.raises(UserError, match='list is no SceneDataset'):
        submit([1, 2], [0, 0, 0])
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match=r'scene\.npz has 3 points, 2 were predicted'):
        submit(ScanNetScenes(root, split='test'), [0, 0])
    assert not list((tmp_path / 'out').iterdir())


def test_parts_with_other_labels_are_refused(tmp_path, submit):
    root = scenes(tmp_path, 'a/tile.npz', 'b/tile.npz')
    meta = dict(classes=('x', 'y'))
    parts = [
        SceneDataset(root, f'{name}/*.npz', labels, metainfo=meta) for name, labels in (('a', (1, 2)), ('b', (2, 1)))
    ]
    with pytest.raises(UserError, match=r'test_dataloader\.dataset\.datasets\[1\] has another format of submission'):
        submit(ConcatDataset(parts), [0, 1, 0])
    assert len(submit(ConcatDataset([parts[0], SceneDataset(root, 'b/*.npz', (1, 2), metainfo=meta)]), [0, 1, 0])) == 2


def test_labels_of_any_size_and_files_of_other_scenes(tmp_path, submit, monkeypatch):
    messages = []
    monkeypatch.setattr('mmmap.engine.hooks.scene_submission_hook.print_log', lambda text, *_: messages.append(text))
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'old.ply').touch()
    root = scenes(tmp_path, 'a/tile.npz')
    dataset = SceneDataset(root, 'a/*.npz', class_labels=(2**40, -7), metainfo=dict(classes=('x', 'y')))
    files = submit(dataset, [1, 0, 1])
    assert messages[0].endswith('out has 1 files of other scenes (old.ply first), which are kept')
    assert read_ply(files[0])['label'].tolist() == [-7, 2**40, -7]
