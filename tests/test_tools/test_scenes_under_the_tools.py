"""S3DIS and ScanNet under the tools: generated releases, prepared, and an iteration of the configs as they are."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from raw_scenes import AREAS, SCANS, write_s3dis, write_scannet

from mmmap.datasets import S3DISScenes, ScanNetScenes
from mmmap.structures.ply import read_ply

ROOT = Path(__file__).parents[2]
CASES = {
    's3dis': ('s3dis-area5', write_s3dis, 'ROOMS', AREAS, S3DISScenes),
    'scannet': ('scannet', write_scannet, 'SCANS', SCANS, ScanNetScenes),
}
# One iteration of two crops, then every point of the validation. No workers, as the data are small; all else is the
# configs' own.
OPTIONS = [
    'train_dataloader.dataset.indices=2',
    'train_dataloader.batch_size=2',
    *(f'{part}_dataloader.num_workers=0' for part in ('train', 'val')),
    *(f'{part}_dataloader.persistent_workers=False' for part in ('train', 'val')),
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
    'default_hooks.visualization.draw=True',
    'default_hooks.visualization.interval=1',
    'default_hooks.visualization.out_dir=pictures',
]


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    """A current folder with the prepared scenes where the config expects them; config, name and data set."""
    name = request.param
    config, write, counts, expected, dataset = CASES[name]
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', [f'{name}.py', str(write(tmp_path / 'raw'))])
    tool = runpy.run_path(str(ROOT / f'tools/dataset_converters/{name}.py'))
    monkeypatch.setitem(tool['main'].__globals__, counts, expected)
    tool['main']()
    return ROOT / f'configs/pointmap/pointhybrid-small_1xb16-coslr-100e_{config}.py', dataset


def mean_iou(truth, prediction, count):
    """Over the classes that occur or are predicted, counted one by one."""
    scores = []
    for index in range(count):
        true, predicted = truth == index, (prediction == index) & (truth != 255)
        if (true | predicted).any():
            scores.append(100 * (true & predicted).sum() / (true | predicted).sum())
    return np.mean(scores)


def test_an_iteration_of_training_and_whole_scenes(case, run_tool):
    config, dataset = case
    run_tool('train.py', config, '--work-dir', 'train', '--cfg-options', *OPTIONS)
    log = [json.loads(line) for line in next(Path('train').rglob('scalars.json')).read_text().splitlines()]
    (loss,) = [row['loss'] for row in log if 'loss' in row]
    assert 0 < loss < 10
    # The predicted labels of every point are in the PLY files.
    scenes = dataset(test_area=5, test_mode=True) if dataset is S3DISScenes else dataset(split='val')
    truths, predictions = [], []
    for i in range(len(scenes)):
        path = Path(scenes.get_data_info(i)['lidar_path'])
        truths.append(np.load(path)['label'])
        predictions.append(read_ply(f'pictures/val_{path.parent.name}_{path.stem}_1.ply')['label'])
        assert len(predictions[i]) == len(truths[i])
        assert Path(f'pictures/val_{path.parent.name}_{path.stem}_1.png').is_file()
    truth, prediction = np.concatenate(truths), np.concatenate(predictions)
    assert log[-1]['mIoU'] == pytest.approx(mean_iou(truth, prediction, len(dataset.METAINFO['classes'])), abs=1e-3)
    assert log[-1]['OA'] == pytest.approx(100 * (truth == prediction)[truth != 255].mean(), abs=1e-3)
