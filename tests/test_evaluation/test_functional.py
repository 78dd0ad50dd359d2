"""The kNN accuracy, by hand."""

import numpy as np
import pytest

from mmmap.evaluation import knn_accuracy


def test_votes_are_weighted_by_similarity():
    # Two neighbours of class 1 at 60 degrees, one of class 0 at 10: exp(s / T) makes the near one win.
    angles = np.radians([10, 60, -60])
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    query = np.array([[5.0, 0.0]])
    labels = np.array([0, 1, 1])
    assert knn_accuracy(bank, labels, query, np.array([0]), k=3) == 100.0
    # With a hot temperature the majority wins.
    assert knn_accuracy(bank, labels, query, np.array([0]), k=3, temperature=100.0) == 0.0


def test_length_of_a_feature_does_not_count():
    rng = np.random.default_rng(0)
    bank, labels = rng.normal(size=(60, 8)), rng.integers(0, 3, 60)
    query, query_labels = rng.normal(size=(40, 8)), rng.integers(0, 3, 40)
    scaled = bank * rng.uniform(0.1, 10, size=(60, 1))
    expected = knn_accuracy(bank, labels, query, query_labels, k=5)
    assert knn_accuracy(scaled, labels, query * 3, query_labels, k=5) == pytest.approx(expected)
    similarity = (query / np.linalg.norm(query, axis=1)[:, None]) @ (bank / np.linalg.norm(bank, axis=1)[:, None]).T
    hits = 0
    for row, label in zip(similarity, query_labels, strict=True):
        nearest = np.argsort(-row)[:5]
        votes = [np.exp(row[nearest] / 0.07)[labels[nearest] == c].sum() for c in range(3)]
        hits += np.argmax(votes) == label
    assert expected == pytest.approx(100 * hits / 40)


def test_more_neighbours_than_features():
    with pytest.raises(ValueError, match='k=20 neighbours of 3 bank features'):
        knn_accuracy(np.eye(3), np.arange(3), np.eye(3), np.arange(3))
