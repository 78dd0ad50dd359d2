"""The kNN accuracy, by hand."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from mmmap.evaluation import knn, knn_accuracy, knn_scores


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
    with pytest.raises(ValueError, match='k=20 neighbours among 3 bank features'):
        knn_accuracy(np.eye(3), np.arange(3), np.eye(3), np.arange(3))


def test_scores_are_those_of_scikit_learn_chunk_by_chunk(monkeypatch):
    rng = np.random.default_rng(0)
    bank, labels = rng.normal(size=(60, 8)).astype(np.float32), rng.integers(0, 5, 60)
    query = rng.normal(size=(45, 8)).astype(np.float32)
    # On unit vectors the squared Euclidean distance is 2 - 2 s.
    theirs = KNeighborsClassifier(7, algorithm='brute', weights=lambda d: np.exp((1 - d**2 / 2) / 0.07))
    expected = theirs.fit(normalize(bank), labels).predict_proba(normalize(query))
    for similarities in (2**26, 60 * 7, 1):
        monkeypatch.setattr(knn, '_MAX_SIMILARITIES', similarities)
        scores = knn_scores(bank, labels, query, k=7)
        assert np.allclose(scores, expected, atol=1e-5)


def test_feature_that_is_not_finite():
    with pytest.raises(ValueError, match='a query feature is not finite'):
        knn_scores(np.eye(3), np.arange(3), np.full((2, 3), np.nan), k=1)
