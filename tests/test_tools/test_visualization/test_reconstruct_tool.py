"""The tool that draws reconstructions, on a converted checkpoint, and the one that plots curves."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmap.apis import build_model, build_stored_model

ROOT = Path(__file__).parents[3]


def load_tool(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / 'tools' / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def converted(tmp_path, data_dir):
    """A released checkpoint of 64 x 64 images, converted."""
    stored = np.load(data_dir / 'map_a_64px_d48x6.npz')
    released = {key[3:]: torch.tensor(stored[key]) for key in stored.files if key.startswith('sd/')}
    torch.save(released, tmp_path / 'released.pth')
    convert = load_tool('model_converters/official_to_mmmap.py').convert
    convert(str(tmp_path / 'released.pth'), str(tmp_path / 'ours.pth'), num_heads=4, decoder_num_heads=4)
    return tmp_path / 'ours.pth'


def test_a_converted_checkpoint_needs_no_config(run_tool, converted, tmp_path, capsys):
    colours = np.zeros((64, 64, 3), np.uint8)
    colours[:, :32] = (250, 20, 20)
    colours[:, 32:] = (20, 20, 250)
    Image.fromarray(colours).save(tmp_path / 'red_blue.png')
    run_tool('visualization/reconstruct.py', converted, tmp_path / 'red_blue.png', '--out', tmp_path / 'out.png')
    assert 'loss' in capsys.readouterr().out
    original = np.asarray(Image.open(tmp_path / 'out.png'))[2:66, 2:66].astype(int)
    assert np.abs(original - colours).max() <= 1
    # What the model sees is normalised as the released script does.
    model = build_stored_model(str(converted))
    assert model.data_preprocessor.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_the_training_set_of_a_config(run_tool, tiny_map, tmp_path, capsys):
    cfg = Config.fromfile(tiny_map)
    torch.save(dict(state_dict=build_model(cfg).state_dict()), tmp_path / 'trained.pth')
    run_tool('visualization/reconstruct.py', 'trained.pth', '--config', tiny_map, '--count', 3)
    assert 'on the hidden patches of 3 image(s)' in capsys.readouterr().out
    # Images of 32 pixels, three times as large, two triples in a row.
    assert Image.open('reconstruction.png').size == (6 * (3 * 32 + 4), 2 * (3 * 32 + 4))


def test_a_checkpoint_without_a_model_asks_for_a_config(run_tool, tmp_path, capsys):
    torch.save(dict(meta=dict(epoch=1), state_dict={}), tmp_path / 'trained.pth')
    with pytest.raises(SystemExit):
        run_tool('visualization/reconstruct.py', tmp_path / 'trained.pth', 'x.png')
    assert 'stores no model config: give one with --config' in capsys.readouterr().err


def test_a_broken_image_is_named(run_tool, converted, tmp_path, capsys):
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG nothing')
    with pytest.raises(SystemExit):
        run_tool('visualization/reconstruct.py', converted, tmp_path / 'broken.png')
    assert 'broken.png' in capsys.readouterr().err.splitlines()[-1]


def test_curves(run_tool, tmp_path, capsys):
    path = tmp_path / 'run' / 'scalars.json'
    path.parent.mkdir()
    path.write_text('\n'.join(json.dumps(dict(loss=1 / i, step=i)) for i in range(1, 9)))
    run_tool('analysis_tools/plot_curves.py', tmp_path / 'run', '--keys', 'loss', '--out', tmp_path / 'curves.png')
    assert Image.open(tmp_path / 'curves.png').size[0] > 100
    with pytest.raises(SystemExit):
        run_tool('analysis_tools/plot_curves.py', tmp_path / 'run', '--keys', 'lr', '--out', tmp_path / 'none.png')
    assert "no run has the scalar 'lr'" in capsys.readouterr().err
