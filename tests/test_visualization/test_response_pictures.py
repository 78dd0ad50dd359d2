"""Pictures of maps show each map, over the right image."""

import numpy as np
import torch
from PIL import Image

from mmmap.visualization import draw_receptive_fields, draw_token_responses


def test_receptive_fields(tmp_path):
    field = torch.full((32, 48), 1e-9)
    field[:, 24:] = 2.0
    draw_receptive_fields({'before': field, 'after': field.flip(1)}, tmp_path / 'new' / 'erf.png')
    picture = np.asarray(Image.open(tmp_path / 'new' / 'erf.png').convert('RGB')).astype(int)
    # The brightest of the colours of both panels: right half of the first, left half of the second.
    bright = (picture.min(-1) > 150) & (picture[..., 0] - picture[..., 2] > 40)
    columns = np.flatnonzero(bright.sum(0) > picture.shape[0] / 4)
    quarter = picture.shape[1] / 4
    assert len(columns) and columns.min() > 0.5 * quarter and columns.max() < 4 * quarter
    dark = np.flatnonzero((picture.max(-1) < 20).sum(0) > picture.shape[0] / 4)
    assert dark.min() < columns.min() and dark.max() > columns[columns < 3.2 * quarter].max()


def test_maps_over_images(tmp_path):
    images = np.zeros((2, 32, 32, 3), np.uint8)
    images[0, ..., 0] = 255
    images[1, ..., 2] = 255
    peak = torch.zeros(4, 4)
    peak[0, 3] = 0.3
    rows = [(0, 'red', {'scan, block 0': peak}), (1, 'blue', {'scan, block 0': torch.zeros(4, 4)})]
    draw_token_responses(images, rows, (1, 2), tmp_path / 'maps.png')
    picture = np.asarray(Image.open(tmp_path / 'maps.png').convert('RGB')).astype(int)
    reds = np.argwhere((picture == (255, 0, 0)).all(-1))
    blues = np.argwhere((picture == (0, 0, 255)).all(-1))
    assert len(reds) > 1000 and len(blues) > 1000
    assert reds[:, 0].max() < blues[:, 0].min()
    # The map's peak lies in the upper right of the second panel of the first row.
    yellow = np.argwhere((picture[..., 0] > 180) & (picture[..., 1] > 180) & (picture[..., 0] - picture[..., 2] > 40))
    assert len(yellow) > 50
    assert yellow[:, 1].min() > reds[:, 1].max() and yellow[:, 0].max() < reds[:, 0].mean()
    # The token is outlined in both panels of both rows.
    cyan = np.argwhere((picture[..., 0] < 60) & (picture[..., 1] > 200) & (picture[..., 2] > 200))
    middle = picture.shape[1] / 2
    for rows_of in (cyan[:, 0] < blues[:, 0].min() - 5, cyan[:, 0] > blues[:, 0].min()):
        assert (cyan[rows_of, 1] < middle).any() and (cyan[rows_of, 1] > middle).any()
