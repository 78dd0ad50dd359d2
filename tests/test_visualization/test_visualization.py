"""Pictures show what they should, where they should."""

import json

import numpy as np
import pytest
import torch

from mmmap.visualization import draw_reconstruction, plot_curves, read_scalars
from mmmap.visualization.image_reconstruction import HIDDEN, LINE_WIDTH


@pytest.fixture
def model(build_map):
    return build_map(data_preprocessor=dict(mean=[10.0, 20.0, 30.0], std=[2.0, 3.0, 4.0])).eval()


def test_original_masked_and_rebuilt_side_by_side(model):
    pixels = torch.randint(0, 255, (3, 3, 64, 64)).float()
    inputs = model.data_preprocessor(dict(inputs=pixels, data_samples=None))['inputs']
    mask = torch.zeros(3, 16, dtype=torch.bool)
    mask[:, [0, 5]] = True
    with torch.no_grad():
        reconstruction = model.reconstruct(inputs, mask)
    picture = draw_reconstruction(reconstruction, inputs, model.data_preprocessor, columns=2)
    side = 64 + 2 * LINE_WIDTH
    assert picture.dtype == np.uint8
    assert picture.shape == (2 * side, 6 * side, 3)
    tiles = picture.reshape(2, side, 6, side, 3).transpose(0, 2, 1, 3, 4)
    tiles = tiles[:, :, LINE_WIDTH:-LINE_WIDTH, LINE_WIDTH:-LINE_WIDTH].reshape(12, 64, 64, 3)
    expected = pixels.permute(0, 2, 3, 1).numpy()
    for i in range(3):
        original, masked, rebuilt = tiles[3 * i : 3 * i + 3]
        assert np.abs(original - expected[i]).max() <= 1
        assert (masked[:16, :16] == HIDDEN).all()
        assert (masked[16:32, 16:32] == HIDDEN).all()
        assert np.array_equal(masked[32:], original[32:])
        assert np.array_equal(rebuilt[32:], original[32:])
        predicted = reconstruction.images()[i] * torch.tensor([2.0, 3, 4])[:, None, None]
        predicted += torch.tensor([10.0, 20, 30])[:, None, None]
        predicted = predicted.round().clamp(0, 255).permute(1, 2, 0).numpy()
        assert np.abs(rebuilt[:16, :16] - predicted[:16, :16]).max() <= 1
    assert (tiles[9:] == 255).all()


def test_scalars_of_a_resumed_run_are_joined(tmp_path):
    def write(part, records):
        folder = tmp_path / part / 'vis_data'
        folder.mkdir(parents=True)
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + '\n')
        return folder / 'scalars.json'

    first = write('20260101_000000', [dict(loss=3.0, step=10), dict(loss=2.0, step=20)])
    first.write_text(first.read_text() + '{"loss": 1.')
    write('20260101_010000', [dict(loss=2.5, step=20), dict(loss=1.5, step=30), {'knn/accuracy': 50.0, 'step': 1}])
    scalars = read_scalars(tmp_path)
    assert scalars == {'loss': ([10, 20, 30], [3.0, 2.5, 1.5]), 'knn/accuracy': ([1], [50.0])}
    out = tmp_path / 'out' / 'curves.png'
    plot_curves({'run': tmp_path, 'other': first}, ['loss', 'knn/accuracy'], out)
    assert out.read_bytes().startswith(b'\x89PNG')


def test_missing_scalars_are_named(tmp_path):
    with pytest.raises(ValueError, match=r'no scalars\.json'):
        read_scalars(tmp_path)
    path = tmp_path / 'scalars.json'
    path.write_text('{"loss": 1.0, "step": 1}\n')
    with pytest.raises(ValueError, match="no run has the scalar 'acc'; the scalars are loss"):
        plot_curves({'run': path}, ['acc'], tmp_path / 'x.png')
    path.write_text('nonsense\n{"loss": 1.0, "step": 1}\n')
    with pytest.raises(ValueError, match=r'scalars\.json:1: the line is not JSON'):
        read_scalars(path)
