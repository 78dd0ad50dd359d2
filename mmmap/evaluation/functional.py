"""Measures of features."""

import numpy as np
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize


def knn_accuracy(
    bank_features: np.ndarray,
    bank_labels: np.ndarray,
    query_features: np.ndarray,
    query_labels: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of a weighted nearest-neighbour classifier on frozen features.

    The k nearest bank features by cosine similarity s vote with weight exp(s / temperature), the protocol of instance
    discrimination (arXiv 1805.01978, section 3.4) that DINO made common.

    Args:
        bank_features (np.ndarray): Features that vote, shape (N, C).
        bank_labels (np.ndarray): Their classes, shape (N,).
        query_features (np.ndarray): Features to classify, shape (M, C).
        query_labels (np.ndarray): Their classes, shape (M,).
        k (int): Neighbours. Defaults to 20.
        temperature (float): Temperature of the votes. Defaults to 0.07.

    Returns:
        float: Accuracy in percent.

    Raises:
        ValueError: If there are fewer than k bank features, or a feature is not finite.
    """
    if len(bank_features) < k:
        raise ValueError(f'k={k} neighbours of {len(bank_features)} bank features')
    # On unit vectors the squared Euclidean distance is 2 - 2 s.
    classifier = KNeighborsClassifier(k, algorithm='brute', weights=lambda d: np.exp((1 - d**2 / 2) / temperature))
    classifier.fit(normalize(bank_features), bank_labels)
    return 100.0 * classifier.score(normalize(query_features), query_labels)
