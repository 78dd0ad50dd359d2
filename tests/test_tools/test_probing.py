"""The probes of the demo's checkpoint, by the commands of the README, on a few generated digits."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image
from sklearn.datasets import load_digits

from mmmap.registry import MODELS

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / 'configs/map/benchmarks'
DEMO = ROOT / 'configs/map/map_hybrid-digits_1xb64-coslr-16e_digits-28px.py'
KNN = BENCHMARKS / 'map_hybrid-digits_knn_digits-28px.py'
LINEAR = BENCHMARKS / 'map_hybrid-digits_1xb64-linear-coslr-10e_digits-28px.py'
CHECKPOINT = 'work_dirs/demo/epoch_16.pth'


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The current folder is one in which the demo has run: digits, and a checkpoint of its (untrained) model."""
    data = load_digits()
    for digit in range(10):
        for i, image in enumerate(data.images[data.target == digit][:5]):
            path = tmp_path / 'data/digits' / ('train' if i < 3 else 'test') / str(digit) / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image * 15).astype(np.uint8)).resize((28, 28)).save(path)
    cfg = Config.fromfile(DEMO)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    torch.save({'state_dict': model.state_dict()}, tmp_path / CHECKPOINT)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.chdir(tmp_path)
    return model


def accuracy(out: str, name: str) -> float:
    return float(re.findall(rf'{name}: ([\d.]+)', out)[-1])


def test_linear_probe_trains_its_head_alone_and_is_tested(demo, run_tool, capsys, tmp_path):
    # Two iterations.
    small = ['train_dataloader.batch_size=15', 'train_cfg.max_epochs=1', 'experiment_name=linear']
    run_tool('train.py', LINEAR, '--cfg-options', *small)
    trained = accuracy(capsys.readouterr().out, 'accuracy/top1')
    checkpoint = tmp_path / 'work_dirs' / LINEAR.stem / 'epoch_1.pth'
    weights = torch.load(checkpoint, weights_only=False)['state_dict']
    for name, value in demo.backbone.state_dict().items():
        assert torch.equal(weights[f'backbone.{name}'], value), name
    assert weights['head.fc.bias'].any()  # Zero at the start.
    assert weights['neck.bn.num_batches_tracked'] == 2
    run_tool('test.py', LINEAR, checkpoint)
    assert accuracy(capsys.readouterr().out, 'accuracy/top1') == trained


def test_knn_writes_its_predictions_and_refuses_other_models(demo, run_tool, capsys, tmp_path):
    run_tool('test.py', KNN, CHECKPOINT, '--out', 'predictions.pkl', '--cfg-options', 'experiment_name=knn')
    percent = accuracy(capsys.readouterr().out, 'knn/accuracy')
    predictions = mmengine.load('predictions.pkl')
    labels = np.array([int(prediction['gt_label']) for prediction in predictions])
    assert list(labels) == [digit for digit in range(10) for _ in range(2)]
    found = np.array([int(prediction['pred_label']) for prediction in predictions])
    assert percent == pytest.approx(100 * (found == labels).mean())

    with pytest.raises(SystemExit):
        run_tool('test.py', KNN, CHECKPOINT, '--cfg-options', 'test_cfg.k=31')
    assert 'test_cfg.k=31: must be from 1 to the 30 images of' in capsys.readouterr().err.splitlines()[-1]
    del demo.backbone.pos_embed
    torch.save({'state_dict': demo.state_dict()}, 'other.pth')
    with pytest.raises(SystemExit):
        run_tool('test.py', KNN, 'other.pth')
    assert 'other.pth is a checkpoint of another model' in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_find_what_one_finds(demo, run_tool, capsys):
    if torch.cuda.is_available():
        pytest.skip('two processes would need two GPUs')
    # 19 digits, so that one process gets one twice.
    Path('data/digits/test/7/3.png').unlink()
    run_tool('test.py', KNN, CHECKPOINT, '--out', 'one.pkl', '--cfg-options', 'experiment_name=one')
    percent = accuracy(capsys.readouterr().out, 'knn/accuracy')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = os.environ | dict(PYTHON=sys.executable, PORT=str(port))
    environment.pop('LOCAL_RANK')
    result = subprocess.run(
        [ROOT / 'tools/dist_test.sh', KNN, CHECKPOINT, '2', '--out', 'two.pkl'],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-3000:]
    assert accuracy(output, 'knn/accuracy') == percent
    one, two = mmengine.load('one.pkl'), mmengine.load('two.pkl')
    assert len(one) == len(two) == 19
    for expected, prediction in zip(one, two, strict=True):
        assert prediction['gt_label'] == expected['gt_label']
        assert torch.allclose(prediction['pred_score'], expected['pred_score'], atol=1e-5)
