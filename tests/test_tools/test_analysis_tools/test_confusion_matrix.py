"""Confusion matrices from a checkpoint and from stored predictions."""

import json

import mmengine
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmap.registry import MODELS


@pytest.fixture
def checkpoint(tiny_classifier, tmp_path):
    """A classifier that says 'dog' to every image; one half of them are."""
    model = MODELS.build(dict(Config.fromfile(tiny_classifier).model, _scope_='mmpretrain'))
    model.head.fc.weight.data.zero_()
    model.head.fc.bias.data = torch.tensor([0.0, 1.0])
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'model.pth')
    return tmp_path / 'model.pth'


def test_checkpoint_and_predictions_agree(run_tool, tiny_classifier, checkpoint, tmp_path, capsys):
    run_tool('test.py', tiny_classifier, checkpoint, '--work-dir', 'run', '--out', 'predictions.pkl')
    for source in (checkpoint, 'predictions.pkl'):
        files = ['--out', tmp_path / 'out' / 'cm.png', '--json', tmp_path / 'out' / 'cm.json']
        capsys.readouterr()
        run_tool('analysis_tools/confusion_matrix.py', tiny_classifier, source, '--work-dir', 'run', *files)
        assert json.loads(files[3].read_text()) == dict(classes=['cat', 'dog'], counts=[[0, 4], [0, 4]])
        printed = capsys.readouterr().out
        assert 'accuracy: 50.00 % of 8 images' in printed and '4 of 4 cat taken for dog' in printed
        assert Image.open(files[1]).width > 500
        files[1].unlink(), files[3].unlink()


def test_predictions_without_the_data(run_tool, tiny_classifier, checkpoint, tmp_path, capsys):
    run_tool('test.py', tiny_classifier, checkpoint, '--work-dir', 'run', '--out', 'predictions.pkl')
    options = ['--json', 'cm.json', '--cfg-options', 'test_dataloader.dataset.data_root=/no/images']
    run_tool('analysis_tools/confusion_matrix.py', tiny_classifier, 'predictions.pkl', *options)
    assert json.loads((tmp_path / 'cm.json').read_text())['classes'] == ['cat', 'dog']
    run_tool('analysis_tools/confusion_matrix.py', tiny_classifier, 'predictions.pkl', '--data', tmp_path)
    assert f'--data {tmp_path} is not used: predictions.pkl names its classes' in capsys.readouterr().out
    # Of another tool, they have no names.
    nameless = mmengine.load(tmp_path / 'predictions.pkl')
    for prediction in nameless:
        del prediction['classes']
    mmengine.dump(nameless, tmp_path / 'nameless.pkl')
    run_tool('analysis_tools/confusion_matrix.py', tiny_classifier, 'nameless.pkl', *options)
    assert json.loads((tmp_path / 'cm.json').read_text())['classes'] == ['0', '1']


def test_predictions_without_names_of_other_classes(run_tool, tiny_classifier, tmp_path, capsys):
    predictions = [dict(gt_label=torch.tensor([0]), pred_label=torch.tensor([0]), pred_score=torch.ones(3) / 3)]
    mmengine.dump(predictions, tmp_path / 'other.pkl')
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/confusion_matrix.py', tiny_classifier, 'other.pkl', '--work-dir', 'run')
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith('error: other.pkl does not name its 3 classes and test_dataloader.dataset has 2')
    predictions.append(predictions[0] | dict(classes=('a', 'b', 'c')))
    mmengine.dump(predictions, tmp_path / 'other.pkl')
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/confusion_matrix.py', tiny_classifier, 'other.pkl', '--work-dir', 'run')
    assert 'other.pkl: predictions of tests with different classes' in capsys.readouterr().err.splitlines()[-1]


def test_mistakes_end_in_one_line(run_tool, tiny_classifier, tiny_map, tmp_path, capsys):
    mmengine.dump([dict(features=1)], tmp_path / 'features.pkl')
    for config, source, message in [
        (tiny_classifier, 'no.pth', 'error: checkpoint not found: no.pth'),
        (tiny_classifier, 'no.pkl', 'error: predictions not found: no.pkl'),
        (tiny_classifier, 'features.pkl', 'error: features.pkl: not predictions of a classifier'),
        (tiny_map, 'no.pth', f'error: {tiny_map} has no test_dataloader'),
    ]:
        with pytest.raises(SystemExit):
            run_tool('analysis_tools/confusion_matrix.py', config, source, '--work-dir', 'run')
        assert capsys.readouterr().err.splitlines()[-1].startswith(message)
