import re

import pytest
import torch
from mmengine.logging import HistoryBuffer


@pytest.fixture
def checkpoint(example, tmp_path):
    path = tmp_path / 'map.pth'
    torch.save(example('map_in_one_file').MAP().state_dict(), path)
    return path


def test_checkpoint_of_a_run_reaches_the_backbone_too(example, checkpoint):
    # A run stores its records beside the weights.
    weights = torch.load(checkpoint, weights_only=True)
    torch.save(dict(state_dict=weights, message_hub=dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1])))), checkpoint)
    model = example('backbone_in_plain_torch').build('raw', checkpoint)
    assert torch.equal(model.patch_embed.weight, weights['backbone.patch_embed.weight'])


def test_checkpoint_reaches_the_backbone(example, checkpoint):
    model = example('backbone_in_plain_torch').build('raw', checkpoint)
    stored = torch.load(checkpoint, weights_only=True)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, stored[f'backbone.{name}']), name


def test_it_shows_three_features_trains_a_classifier_and_loads_it(run_example, checkpoint, tmp_path):
    out = tmp_path / 'new' / 'classifier.pth'
    printed = run_example('backbone_in_plain_torch', checkpoint, '--epochs', 2, '--out', out)
    shapes = dict(re.findall(r'^(\w+) +(\([\d, ]+\))$', printed, re.M))
    assert shapes == dict(avg_featmap='(1, 96)', featmap='(1, 96, 4, 4)', raw='(1, 16, 96)')
    accuracies = dict(re.findall(r'^(trained|loaded) +([\d.]+) %', printed, re.M))
    # A linear layer on random weights gets most digits; chance is 10 %.
    assert float(accuracies['trained']) > 60
    assert accuracies['loaded'] == accuracies['trained']
    stored, loaded = torch.load(checkpoint, weights_only=True), torch.load(out, weights_only=True)
    name = 'backbone.encoder.norm.weight'
    assert torch.equal(stored[name], loaded[name])


def test_missing_checkpoint_is_one_line(run_example, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_example('backbone_in_plain_torch', tmp_path / 'none.pth')
    message = capsys.readouterr().err.splitlines()[-1]
    assert 'none.pth: no such file' in message
    assert 'map_in_one_file.py writes it' in message
