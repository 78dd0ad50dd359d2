"""Features of a frozen model on a whole data set."""

from collections.abc import Iterable

import numpy as np
import torch
from mmengine.dist import collect_results, is_main_process
from torch import Tensor, nn
from torch.utils.data import DataLoader


def pooled_feature(feature: Tensor | tuple[Tensor, ...]) -> Tensor:
    """One vector an image: the last feature of a tuple, averaged over tokens (B, L, C) or positions (B, C, H, W)."""
    feature = feature[-1] if isinstance(feature, tuple) else feature
    if feature.ndim == 3:
        return feature.mean(dim=1)
    return feature.mean(dim=(2, 3)) if feature.ndim == 4 else feature


@torch.no_grad()
def extract_share(model: nn.Module, batches: Iterable) -> list[tuple[np.ndarray, int]]:
    """Pooled features and labels of this process's share of a labelled data set, without waiting for others.

    Args:
        model (nn.Module): As of :func:`extract_features`. Its mode is as before, also after an error.
        batches (Iterable): Those of a loader as of :func:`extract_features`.

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
    """Bring the shares of all processes together.

    Args:
        results (list[tuple[np.ndarray, int]]): What :func:`extract_share` found.
        dataloader (DataLoader): Where the images came from.

    Returns:
        tuple[np.ndarray, np.ndarray] | None: As of :func:`extract_features`.
    """
    results = collect_results(results, len(dataloader.dataset), device='cpu')
    if not is_main_process():
        return None
    features, labels = zip(*results, strict=True)
    return np.stack(features), np.array(labels)


def extract_features(model: nn.Module, dataloader: DataLoader) -> tuple[np.ndarray, np.ndarray] | None:
    """Pooled features and labels of a labelled data set.

    Args:
        model (nn.Module): A model with ``data_preprocessor`` and ``extract_feat``, such as ``MAP`` or mmpretrain's
            ``ImageClassifier``.
        dataloader (DataLoader): Yields batches of images and mmpretrain's labelled data samples, each rank its share.

    Returns:
        tuple[np.ndarray, np.ndarray] | None: Features (N, C) float32 and labels (N,), in the data set's order, on the
        main process; None on the others.
    """
    return gather_shares(extract_share(model, dataloader), dataloader)
