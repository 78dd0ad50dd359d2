from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder of eight generated JPEGs of 32 x 32 pixels."""
    folder = tmp_path / 'images'
    folder.mkdir()
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype='uint8')
        Image.fromarray(pixels).save(folder / f'{seed}.jpg')
    return folder
