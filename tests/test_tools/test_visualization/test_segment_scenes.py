"""The tool that labels scenes."""

import numpy as np
import pytest
import torch
from PIL import Image
from point_parts import PointwiseSegmentor
from raw_scenes import write_tiles

from mmmap.registry import MODELS
from mmmap.structures.ply import read_ply, write_ply

CONFIG = """
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
default_scope = 'mmengine'
model = dict(
    type='SceneSegmentor',
    segmentor=dict(type='PointwiseStandIn', channels=3, num_classes=6),
    test_cfg=dict(crop='block', size=5.0, stride=5.0, num_points=64),
    data_preprocessor=dict(type='PointDataPreprocessor'),
)
test_dataloader = dict(dataset=dict(
    type='SceneDataset',
    class_labels=(1, 2, 3, 4, 5, 6),
    metainfo=dict(classes=('ground', 'low', 'medium', 'high', 'building', 'other')),
    pipeline=[dict(type='LoadScene'), dict(type='PackPointInputs')],
))
"""


@pytest.fixture
def trained(tmp_path):
    """Paths of a config and a checkpoint, whose model tells the ground from buildings by the height."""
    MODELS.register_module(name='PointwiseStandIn', module=PointwiseSegmentor, force=True)
    (tmp_path / 'config.py').write_text(CONFIG)
    segmentor = PointwiseSegmentor(3, 6)
    torch.nn.init.zeros_(segmentor.classifier.weight)
    segmentor.classifier.bias.data = torch.tensor([0.0, -9, -9, -9, -10, -9])
    # Heights are in units of 5 m: above 1 m it is a building.
    segmentor.classifier.weight.data[4, 2] = 50
    weights = {f'segmentor.{name}': value for name, value in segmentor.state_dict().items()}
    torch.save(dict(state_dict=weights), tmp_path / 'trained.pth')
    return tmp_path / 'config.py', tmp_path / 'trained.pth'


def test_a_picture_and_a_ply_file_of_each_scene(run_tool, trained, tmp_path, capsys):
    tiles = write_tiles(tmp_path / 'tiles')
    scene = np.load(tiles / 'test_77060.npz')
    write_ply(tmp_path / 'bare.ply', scene['xyz'])
    run_tool(
        'visualization/segment_scenes.py',
        *trained,
        tiles / 'test_77060.npz',
        tmp_path / 'bare.ply',
        '--out',
        tmp_path / 'out',
    )
    assert '900 points' in capsys.readouterr().out
    height = scene['xyz'][:, 2] - scene['xyz'][:, 2].min()
    names = ('tiles_test_77060', f'{tmp_path.name}_bare')
    for name in names:
        vertices = read_ply(tmp_path / 'out' / f'{name}.ply')
        sure = np.abs(height - 2 * 0.5) > 1e-3
        assert np.array_equal(vertices['label'][sure], np.where(height > 1, 4, 0)[sure])
        assert np.allclose(vertices['x'], scene['xyz'][:, 0])
    # Only the scene with labels has a column for the truth.
    widths = [Image.open(tmp_path / 'out' / f'{name}.png').size[0] for name in names]
    assert widths[0] * 2 == widths[1] * 3


def test_what_is_missing_is_named(run_tool, trained, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_tool('visualization/segment_scenes.py', *trained, tmp_path / 'none.npz')
    assert 'scene not found: ' in capsys.readouterr().err
    (tmp_path / 'broken.npz').write_bytes(b'PK nothing')
    with pytest.raises(SystemExit):
        run_tool('visualization/segment_scenes.py', *trained, tmp_path / 'broken.npz')
    assert 'broken.npz is cut off or not an .npz file' in capsys.readouterr().err.splitlines()[-1]


def test_labels_and_colours_are_those_of_the_test_set(run_tool, trained, tmp_path, capsys):
    xyz = np.random.default_rng(0).uniform(0, 4, (200, 3))
    colours = dict(red=xyz[:, 0] / 4, green=xyz[:, 1] / 4, blue=xyz[:, 2] / 4)
    write_ply(tmp_path / 'bright.ply', xyz, label=np.full(200, 9, np.uint8), **colours)
    # The model sees no colours: what they count to does not matter.
    run_tool('visualization/segment_scenes.py', *trained, tmp_path / 'bright.ply', '--out', tmp_path / 'out')
    assert len(list((tmp_path / 'out').iterdir())) == 2
    config = tmp_path / 'config.py'
    config.write_text(config.read_text().replace('class_labels=(1', "unknown_labels='error', class_labels=(1"))
    with pytest.raises(SystemExit):
        run_tool('visualization/segment_scenes.py', *trained, tmp_path / 'bright.ply', '--out', tmp_path / 'out')
    assert 'bright.ply: label: 200 of 200 labels, 9 (200), are none of' in capsys.readouterr().err
    config.write_text(config.read_text().replace("unknown_labels='error', class_labels=(1, 2, 3, 4, 5, 6),", ''))
    with pytest.raises(SystemExit):
        run_tool('visualization/segment_scenes.py', *trained, tmp_path / 'bright.ply', '--out', tmp_path / 'out')
    assert 'bright.ply: label: 200 of 200 labels, 9 (200), are none of' in capsys.readouterr().err
