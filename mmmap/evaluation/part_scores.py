"""Scores of part segmentation."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from mmmap.structures.scene_files import whole_numbers


class PartScores(TypedDict):
    """Mean scores of part segmentation in percent.

    Attributes:
        IoU (np.ndarray): Mean of the objects of each category, shape (num_categories,); nan for one without objects.
        class_mIoU (float): Mean of the categories.
        instance_mIoU (float): Mean of the objects.
    """

    IoU: np.ndarray
    class_mIoU: float
    instance_mIoU: float


def part_iou(truth: np.ndarray, prediction: np.ndarray, parts: Sequence[int], ignore_index: int = 255) -> float | None:
    """Mean IoU of an object over the parts of its category (ShapeNetPart, Yi et al., SIGGRAPH Asia 2016).

    A part that has no point and is not predicted counts as 1, as in PointNet's evaluation (arXiv 1612.00593).

    Args:
        truth (np.ndarray): True parts, shape (N,).
        prediction (np.ndarray): Predicted parts, shape (N,).
        parts (Sequence[int]): The parts of the category.
        ignore_index (int): Points with this true part are not counted. Defaults to 255.

    Returns:
        float | None: From 0 to 1; None if no point has a true part.

    Raises:
        ValueError: If the lengths differ, or a true part does not belong to the category.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'{len(prediction)} predictions for {len(truth)} points')
    kept = truth != ignore_index
    truth, prediction = whole_numbers(truth[kept], 'true parts'), whole_numbers(prediction[kept], 'predicted parts')
    if not len(truth):
        return None
    if len(unknown := np.setdiff1d(truth, np.asarray(parts))):
        raise ValueError(f'a point has the true part {unknown[0]}, but its category has the parts {tuple(parts)}')
    scores = []
    for part in parts:
        true, predicted = truth == part, prediction == part
        union = np.count_nonzero(true | predicted)
        scores.append(np.count_nonzero(true & predicted) / union if union else 1.0)
    return float(np.mean(scores))


def part_scores(ious: Sequence[float], categories: Sequence[int], num_categories: int) -> PartScores:
    """Mean scores of categories and of all objects.

    Args:
        ious (Sequence[float]): IoU of each object, from 0 to 1.
        categories (Sequence[int]): Category of each object.
        num_categories (int): Number of categories.

    Raises:
        ValueError: If there is no object.
    """
    if not len(ious):
        raise ValueError('no object has labels: there is nothing to evaluate')
    percents = 100 * np.asarray(ious, np.float64)
    counts = np.bincount(categories, minlength=num_categories)
    with np.errstate(invalid='ignore'):
        means = np.bincount(categories, percents, minlength=num_categories) / counts
    return dict(IoU=means, class_mIoU=float(np.nanmean(means)), instance_mIoU=float(percents.mean()))
