"""Features that a frozen model gives for a whole data set."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from mmengine.dist import collect_results, is_main_process
from mmengine.model import BaseModel
from torch import Tensor
from torch.utils.data import DataLoader


def pooled_feature(feature: Tensor | tuple[Tensor, ...]) -> Tensor:
    """One vector per image: the last feature of a tuple, averaged over tokens (B, L, C) or pixels (B, C, H, W)."""
    feature = feature[-1] if isinstance(feature, tuple) else feature
    if feature.ndim == 3:
        return feature.mean(dim=1)
    return feature.mean(dim=(2, 3)) if feature.ndim == 4 else feature


@torch.no_grad()
def extract_share(model: BaseModel, batches: Iterable) -> list[tuple[np.ndarray, int]]:
    """Pooled features and labels of the images of this process. Does not wait for other processes.

    Args:
        model (BaseModel): See :func:`extract_features`. Its training mode is restored, also after an error.
        batches (Iterable): Batches of a data loader, see :func:`extract_features`.

    Returns:
        list[tuple[np.ndarray, int]]: A feature (C,) float32 and a label for each image.
    """
    training = model.training
    model.eval()
    results = []
    try:
        for batch in batches:
            data = model.data_preprocessor(batch, False)
            features = pooled_feature(model.extract_feat(data['inputs'])).float().cpu().numpy()
            results += [
                (feature, int(sample.gt_label)) for feature, sample in zip(features, data['data_samples'], strict=True)
            ]
    finally:
        model.train(training)
    return results


def gather_shares(
    results: list[tuple[np.ndarray, int]], dataloader: DataLoader
) -> tuple[np.ndarray, np.ndarray] | None:
    """Join the results of :func:`extract_share` of all processes. Returns those of :func:`extract_features`."""
    dataset: Any = dataloader.dataset  # torch types it without a length.
    results = collect_results(results, len(dataset), device='cpu')
    if not is_main_process():
        return None
    features, labels = zip(*results, strict=True)
    return np.stack(features), np.array(labels)


def extract_features(model: BaseModel, dataloader: DataLoader) -> tuple[np.ndarray, np.ndarray] | None:
    """Pooled features and labels of a labelled data set.

    Args:
        model (BaseModel): A model with ``extract_feat``, such as ``MAP`` or mmpretrain's ``ImageClassifier``.
        dataloader (DataLoader): Loads images and mmpretrain's labelled data samples, a share of them on each rank.

    Returns:
        tuple[np.ndarray, np.ndarray] | None: Features (N, C) float32 and labels (N,), in the order of the
        data set, on the main process; None on the others.
    """
    return gather_shares(extract_share(model, dataloader), dataloader)
