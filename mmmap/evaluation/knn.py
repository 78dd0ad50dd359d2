"""Nearest-neighbour classification of frozen features."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

# Similarities computed at once. This bounds the memory for a bank of any size.
_MAX_SIMILARITIES = 2**26


def knn_scores(
    bank_features: np.ndarray,
    bank_labels: np.ndarray,
    query_features: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = 'cpu',
) -> np.ndarray:
    """Scores of a weighted k-nearest-neighbour classifier on frozen features.

    The k bank features with the highest cosine similarity s vote with weight exp(s / temperature). This is the protocol
    of instance discrimination (arXiv 1805.01978, section 3.4), which DINO also uses.

    Args:
        bank_features (np.ndarray): Features that vote, shape (N, C).
        bank_labels (np.ndarray): Their classes, from 0, shape (N,).
        query_features (np.ndarray): Features to classify, shape (M, C).
        k (int): Number of neighbours. Defaults to 20.
        temperature (float): Temperature of the votes. Defaults to 0.07.
        device (torch.device | str): Device of the search; its memory must hold the bank. Defaults to 'cpu'.

    Returns:
        np.ndarray: Share of the votes for each class, shape (M, highest bank label + 1), float32.

    Raises:
        ValueError: If k is not from 1 to N, or a feature is not finite.
    """
    if not 1 <= k <= len(bank_features):
        raise ValueError(f'k={k} neighbours among {len(bank_features)} bank features')
    bank = _unit_vectors(bank_features, 'bank', device)
    query = _unit_vectors(query_features, 'query', device)
    labels = torch.as_tensor(bank_labels, dtype=torch.int64, device=device)
    scores = query.new_zeros(len(query), int(labels.max()) + 1)
    chunk = max(1, _MAX_SIMILARITIES // len(bank))
    for part, votes in zip(query.split(chunk), scores.split(chunk), strict=True):
        similarity, nearest = (part @ bank.T).topk(k)
        votes.scatter_add_(1, labels[nearest], (similarity / temperature).softmax(dim=1))
    return scores.cpu().numpy()


def _unit_vectors(features: np.ndarray, name: str, device: torch.device | str) -> Tensor:
    vectors = torch.as_tensor(features, dtype=torch.float32, device=device)
    if not vectors.isfinite().all():
        raise ValueError(f'a {name} feature is not finite')
    return normalize(vectors, dim=1)


def knn_accuracy(
    bank_features: np.ndarray,
    bank_labels: np.ndarray,
    query_features: np.ndarray,
    query_labels: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str = 'cpu',
) -> float:
    """Accuracy in percent of the classifier of :func:`knn_scores`, given the classes of the queries, shape (M,)."""
    scores = knn_scores(bank_features, bank_labels, query_features, k, temperature, device)
    return 100.0 * float(np.mean(scores.argmax(axis=1) == query_labels))
