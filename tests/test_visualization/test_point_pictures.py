"""Pictures of clouds show the points in their colours, and which classes these are."""

import numpy as np
import pytest

from mmmap.visualization import (
    Cloud,
    draw_clouds,
    draw_point_reconstruction,
    draw_segmentation,
    label_colours,
    make_palette,
)
from mmmap.visualization.cloud_drawing import GREY, MAX_POINTS, PANEL


def has_colour(picture, colour, tolerance=3):
    return bool((np.abs(picture.astype(int) - np.array(colour)).max(-1) <= tolerance).any())


@pytest.fixture
def xyz():
    return np.random.default_rng(0).uniform(size=(400, 3))


def test_clouds_side_by_side_from_two_views(xyz):
    red, blue = (np.full((400, 3), colour) for colour in ((255, 0, 0), (0, 0, 255)))
    picture = draw_clouds([Cloud('a', xyz, red), Cloud('b', xyz, blue)])
    assert picture.dtype == np.uint8
    assert picture.shape == (int(200 * PANEL), int(200 * PANEL), 3)
    upper, lower = np.array_split(picture, 2)
    for half in (upper, lower):
        left, right = np.array_split(half, 2, axis=1)
        assert has_colour(left, (255, 0, 0)) and not has_colour(left, (0, 0, 255))
        assert has_colour(right, (0, 0, 255)) and not has_colour(right, (255, 0, 0))
    rows = draw_clouds([Cloud('a', xyz, red), Cloud('b', xyz, blue), Cloud('c', xyz)], columns=2)
    assert rows.shape == (int(400 * PANEL), int(200 * PANEL), 3)


def test_clouds_of_a_row_share_their_frame(xyz):
    red = np.full((400, 3), (255, 0, 0))
    _, small = np.array_split(draw_clouds([Cloud('a', 4 * xyz, red), Cloud('b', xyz, red)]), 2, axis=1)
    found = np.argwhere(np.abs(small.astype(int) - (255, 0, 0)).max(-1) <= 3)
    # The upper view of a cloud a quarter as large as the other does not fill its half.
    upper = found[found[:, 0] < len(small) // 2]
    assert np.ptp(upper[:, 1]) < 0.5 * small.shape[1]


def test_labels_and_legend(xyz):
    truth, prediction = np.zeros(400, int), np.ones(400, int)
    truth[:100] = 255
    palette = [[10, 200, 10], [200, 10, 10], [10, 10, 200]]
    picture = draw_segmentation(xyz, prediction, truth, classes=['floor', 'wall', 'door'], palette=palette)
    _, true, predicted = np.array_split(picture[: int(100 * PANEL)], 3, axis=1)
    assert has_colour(true, palette[0]) and has_colour(true, GREY) and not has_colour(true, palette[1])
    assert has_colour(predicted, palette[1]) and not has_colour(predicted, palette[0])
    legend = picture[-50:]
    # Only what is seen.
    assert has_colour(legend, palette[0]) and has_colour(legend, palette[1]) and not has_colour(legend, palette[2])
    unlabelled = draw_segmentation(xyz, prediction)
    assert unlabelled.shape[1] == int(200 * PANEL)


def test_many_points_are_thinned_out():
    xyz = np.random.default_rng(0).uniform(size=(3 * MAX_POINTS, 3))
    assert has_colour(draw_clouds([Cloud('a', xyz, np.full(xyz.shape, (255, 0, 0)))]), (255, 0, 0))


@pytest.mark.parametrize('count', [5, 20, 50])
def test_a_palette_has_different_colours(count):
    palette = make_palette(count)
    assert palette.shape == (count, 3) and len(np.unique(palette, axis=0)) == count
    assert label_colours(np.array([1, 255]), palette).tolist() == [palette[1].tolist(), list(GREY)]


def test_a_reconstruction_has_a_row_a_cloud(xyz):
    picture = draw_point_reconstruction([xyz, xyz], [xyz[:100], xyz[100:200]], [xyz[100:], xyz[:100]])
    assert picture.shape == (int(400 * PANEL), int(300 * PANEL), 3)
    columns = np.array_split(picture, 3, axis=1)
    # Visible points are grey in the rebuilt cloud alone.
    assert [has_colour(column, GREY, 0) for column in columns] == [False, False, True]


def test_what_is_no_cloud_is_named(xyz):
    with pytest.raises(ValueError, match=r"cloud 'a': its points have the shape \(400, 2\)"):
        Cloud('a', xyz[:, :2])
    with pytest.raises(ValueError, match=r"cloud 'a': \(3, 3\) colours for \(400, 3\) points"):
        Cloud('a', xyz, xyz[:3])
    with pytest.raises(ValueError, match='no cloud to draw'):
        draw_clouds([])
