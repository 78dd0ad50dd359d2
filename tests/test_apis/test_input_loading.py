"""Inputs of a model from files."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmmap.apis import build_model, load_images


def test_images_are_resized_cropped_and_normalised(cfg, tmp_path):
    pixels = np.zeros((32, 96, 3), np.uint8)
    pixels[:, 32:64] = (30, 50, 70)
    Image.fromarray(pixels).save(tmp_path / 'wide.png')
    inputs = load_images(build_model(cfg), [str(tmp_path / 'wide.png')], (32, 32))
    expected = (torch.tensor([30.0, 50.0, 70.0]) - 10) / 2
    torch.testing.assert_close(inputs, expected.view(1, 3, 1, 1).expand(1, 3, 32, 32))
    (tmp_path / 'broken.png').write_bytes(b'nothing')
    with pytest.raises(Exception, match=r'broken\.png'):
        load_images(build_model(cfg), [str(tmp_path / 'broken.png')], (32, 32))


@pytest.mark.parametrize('to_rgb', [True, False])
def test_images_are_seen_as_rgb_whatever_the_data_set_gives(cfg, tmp_path, to_rgb):
    Image.fromarray(np.full((32, 32, 3), (30, 50, 70), np.uint8)).save(tmp_path / 'a.png')
    cfg.model.data_preprocessor = dict(type='mmpretrain.SelfSupDataPreprocessor', to_rgb=to_rgb)
    inputs = load_images(build_model(cfg), [str(tmp_path / 'a.png')], (32, 32))
    assert inputs[0, :, 5, 7].tolist() == [30, 50, 70]
