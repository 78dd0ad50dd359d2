"""Pictures of receptive fields, attention and scans from checkpoints of pretraining runs and classifiers."""

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmap.apis import build_model


@pytest.fixture
def checkpoint(tiny_map, tmp_path):
    """A pretraining checkpoint."""
    torch.manual_seed(5)
    torch.save(dict(state_dict=build_model(Config.fromfile(tiny_map)).state_dict()), tmp_path / 'epoch_1.pth')
    return tmp_path / 'epoch_1.pth'


@pytest.fixture
def draw(run_tool, tmp_path):
    """A function that runs the tool on two images and returns the size of its picture."""

    def draw(*arguments: object) -> tuple[int, int]:
        config, checkpoint, *options = arguments
        images = [tmp_path / 'images/cat/1.jpg', tmp_path / 'images/dog/2.jpg']
        out = tmp_path / 'out' / 'maps.png'
        run_tool('analysis_tools/response_maps.py', config, checkpoint, *images, *options, '--out', out)
        return Image.open(out).size

    return draw


def test_receptive_fields_before_and_after(draw, tiny_map, checkpoint, capsys):
    alone = draw(tiny_map, checkpoint, '--size', 32, 48)
    width, _ = draw(tiny_map, 'none', '--compare', checkpoint)
    assert width > 1.5 * alone[0]
    printed = capsys.readouterr().out
    assert 'untrained: half of the gradient lies in' in printed and 'epoch_1: half of the gradient' in printed


@pytest.mark.parametrize(('kind', 'block'), [('attention', 1), ('scan', 0)])
def test_maps_of_blocks(draw, tiny_map, tiny_classifier, checkpoint, kind, block):
    two_images = draw(tiny_map, checkpoint, '--kind', kind)
    # The config of a classifier takes the backbone of a pretraining checkpoint; two rows for each image.
    options = ['--kind', kind, '--blocks', block, '--token', 0, 3, '--compare', 'none']
    four_rows = draw(tiny_classifier, checkpoint, *options)
    assert four_rows[0] == two_images[0] and four_rows[1] > 1.5 * two_images[1]


def test_mistakes_end_in_one_line(draw, tiny_map, checkpoint, tmp_path, capsys):
    for options, message in [
        (['no.pth'], 'error: checkpoint not found: no.pth'),
        ([checkpoint, '--kind', 'scan', '--blocks', 1], 'error: --blocks 1: not among the M blocks [0] of --kind scan'),
        ([checkpoint, '--token', 0, 4], 'error: ValueError: token (row 0, column 4) is not in the grid of 4 x 4'),
        ([checkpoint, '--size', 30, 30], 'error: ValueError: an image of 30x30 pixels is not divisible'),
    ]:
        with pytest.raises(SystemExit):
            draw(tiny_map, *options)
        assert capsys.readouterr().err.splitlines()[-1].startswith(message)
    torch.save(dict(state_dict={'backbone.encoder.norm.weight': torch.ones(16)}), tmp_path / 'other.pth')
    with pytest.raises(SystemExit):
        draw(tiny_map, tmp_path / 'other.pth')
    assert 'Missing key(s) in state_dict' in capsys.readouterr().err.splitlines()[-1]
