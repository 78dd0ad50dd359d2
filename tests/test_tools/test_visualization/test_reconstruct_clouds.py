"""The tool that draws reconstructions, on clouds."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from raw_shapes import write_shrec

from mmmap.apis import build_model
from mmmap.structures.ply import read_ply, write_ply

PARTS = ('input', 'visible', 'rebuilt')
CONFIG = """
custom_imports = dict(imports=['mmmap'], allow_failed_imports=False)
default_scope = 'mmpretrain'
model = dict(
    type='MAP',
    backbone=dict(
        type='PointMAPHybrid',
        arch=dict(embed_dim=16, layout='MT', num_heads=2, d_state=4),
        num_groups=16,
        group_size=4,
        in_channels={channels},
    ),
    neck=dict(type='RegionCausalDecoder', in_dim=16, grid=None, embed_dim=16, depth=1, num_heads=2),
    head=dict(type='PointReconstructionHead', in_dim=16, group_size=4),
    masking=dict(type='RandomMasking', ratio=0.5),
    data_preprocessor=dict(type='PointDataPreprocessor'),
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='pseudo_collate'),
    dataset=dict(
        type='PointCloudArrays',
        ann_file='shrec16.npz',
        keys=dict(points='points_train'),
        pipeline=[dict(type='PointsNormalize'), dict(type='PackPointInputs')],
    ),
)
"""


@pytest.fixture
def pretrained(tmp_path, monkeypatch):
    """Writes a config and a checkpoint into the current folder, for clouds with so many columns."""
    monkeypatch.chdir(tmp_path)

    def write(channels=3):
        (tmp_path / 'config.py').write_text(CONFIG.format(channels=channels))
        torch.manual_seed(0)
        model = build_model(Config.fromfile('config.py'))
        torch.save(dict(state_dict=model.state_dict()), 'trained.pth')
        return 'trained.pth', '--config', 'config.py'

    return write


def xyz(path):
    vertices = read_ply(path)
    return np.stack([vertices[axis] for axis in 'xyz'], axis=1)


def test_files_of_clouds(pretrained, run_tool, tmp_path, capsys):
    cloud = np.random.default_rng(0).uniform(size=(200, 3)).astype('float32')
    np.save('array.npy', cloud)
    np.savez('scene.npz', xyz=2 * cloud, rgb=cloud)
    write_ply('table.ply', cloud + 1)
    checkpoint, *config = pretrained()
    files = ('array.npy', 'scene.npz', 'table.ply')
    run_tool('visualization/reconstruct.py', checkpoint, *files, *config, '--points', 200, '--out', 'out.png')
    assert 'on the hidden groups of 3 cloud(s); wrote out.png' in capsys.readouterr().out
    width, height = Image.open('out.png').size
    assert 2 * width == height  # Three rows of two views, three clouds in a row.
    names = {f'{i}_{name}_{part}.ply' for i, name in enumerate(('array', 'scene', 'table')) for part in PARTS}
    assert {path.name for path in (tmp_path / 'out').iterdir()} == names
    # Where a cloud lies and how large it is does not count: the same points in the unit sphere.
    centred = cloud - cloud.mean(0)
    centred /= np.linalg.norm(centred, axis=1).max()
    for i, name in enumerate(('array', 'scene', 'table')):
        points = xyz(f'out/{i}_{name}_input.ply')
        assert np.allclose(np.sort(points, axis=0), np.sort(centred, axis=0), atol=1e-5)
        # Half of the groups are hidden; those that are not are points of the cloud.
        visible, rebuilt = (xyz(f'out/{i}_{name}_{part}.ply') for part in PARTS[1:])
        assert len(visible) == len(rebuilt) == 8 * 4
        gaps = np.linalg.norm(visible[:, None] - points, axis=-1).min(1)
        assert gaps.max() < 1e-5
        assert np.linalg.norm(rebuilt[:, None] - points, axis=-1).min(1).max() > 1e-3


def test_the_training_set_and_one_seed(pretrained, run_tool, tmp_path):
    write_shrec(tmp_path / 'shrec16.npz')
    for name in ('a', 'b'):
        run_tool('visualization/reconstruct.py', *pretrained(), '--count', 2, '--out', f'{name}.png')
    run_tool('visualization/reconstruct.py', *pretrained(), '--count', 2, '--seed', 1, '--out', 'c.png')
    assert sorted(path.name for path in (tmp_path / 'a').iterdir()) == sorted(
        f'{i}_{part}.ply' for i in range(2) for part in PARTS
    )
    pictures = [np.asarray(Image.open(f'{name}.png')) for name in 'abc']
    assert np.array_equal(pictures[0], pictures[1]) and not np.array_equal(pictures[0], pictures[2])
    stored = np.load('shrec16.npz')['points_train'][1].astype('float32')
    stored -= stored.mean(0)
    assert np.allclose(xyz('a/1_input.ply'), stored / np.linalg.norm(stored, axis=1).max(), atol=1e-5)


@pytest.mark.parametrize(
    ('file', 'culprit'),
    [
        ('none.npy', 'none.npy is missing'),
        ('cloud.obj', 'cloud.obj is not a cloud: clouds are read from .npy, .npz, .ply, .pcd'),
        ('flat.npy', 'flat.npy: points have the shape (8,), not (N, 3 + F)'),
        ('broken.npz', 'broken.npz is cut off or not an .npz file'),
        ('coloured.npy', 'coloured.npy has 6 columns, the model takes 3: give only those'),
        ('nan.npy', 'nan.npy: point 0 is not finite'),
        (None, 'nothing to rebuild: give files'),
    ],
)
def test_what_is_wrong_is_named(pretrained, run_tool, tmp_path, capsys, file, culprit):
    (tmp_path / 'broken.npz').write_bytes(b'PK nothing')
    np.save('flat.npy', np.zeros(8))
    np.save('coloured.npy', np.zeros((40, 6)))
    np.save('nan.npy', np.full((40, 3), np.nan))
    checkpoint, *config = pretrained()
    with pytest.raises(SystemExit):
        run_tool('visualization/reconstruct.py', checkpoint, *([file, *config] if file else []))
    assert culprit in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.glob('*.png'))


def test_clouds_with_features(pretrained, run_tool, tmp_path):
    np.save('coloured.npy', np.random.default_rng(0).uniform(size=(64, 6)))
    checkpoint, *config = pretrained(channels=6)
    run_tool('visualization/reconstruct.py', checkpoint, 'coloured.npy', *config, '--points', 32)
    assert len(xyz(tmp_path / 'reconstruction' / '0_coloured_input.ply')) == 32
