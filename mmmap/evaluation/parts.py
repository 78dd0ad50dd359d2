"""Scores of a segmentation into the parts of objects."""

from collections.abc import Sequence

import numpy as np

from mmmap.structures.scene_files import whole_numbers


def part_iou(truth: np.ndarray, prediction: np.ndarray, parts: Sequence[int], ignore_index: int = 255) -> float | None:
    """Mean IoU of an object over the parts that its category has (ShapeNetPart, Yi et al., SIGGRAPH Asia 2016).

    A part that is neither there nor predicted counts as 1, as PointNet's evaluation has it (arXiv 1612.00593).

    Args:
        truth (np.ndarray): True parts, shape (N,).
        prediction (np.ndarray): Predicted parts, shape (N,).
        parts (Sequence[int]): The parts of the category.
        ignore_index (int): Points with this true part are left out. Defaults to 255.

    Returns:
        float | None: From 0 to 1; None if no point is left.

    Raises:
        ValueError: If the lengths differ, or a true part is none of the category.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'{len(prediction)} predictions for {len(truth)} points')
    kept = truth != ignore_index
    truth, prediction = whole_numbers(truth[kept], 'true parts'), whole_numbers(prediction[kept], 'predicted parts')
    if not len(truth):
        return None
    if len(unknown := np.setdiff1d(truth, np.asarray(parts))):
        raise ValueError(f'a point has the true part {unknown[0]}, its category has the parts {tuple(parts)}')
    scores = []
    for part in parts:
        true, predicted = truth == part, prediction == part
        union = np.count_nonzero(true | predicted)
        scores.append(np.count_nonzero(true & predicted) / union if union else 1.0)
    return float(np.mean(scores))


def part_scores(ious: Sequence[float], categories: Sequence[int], num_categories: int) -> dict[str, float | np.ndarray]:
    """Means of the scores of objects.

    Args:
        ious (Sequence[float]): Score of each object, from 0 to 1.
        categories (Sequence[int]): Category of each object.
        num_categories (int): Number of categories.

    Returns:
        dict[str, float | np.ndarray]: In percent: ``IoU`` of each category, the mean of its objects, nan where there is
        none, shape (num_categories,); ``class_mIoU``, their mean; ``instance_mIoU``, the mean of all objects.

    Raises:
        ValueError: If there is no object.
    """
    if not len(ious):
        raise ValueError('no object with labels: there is nothing to evaluate')
    ious, categories = 100 * np.asarray(ious, np.float64), np.asarray(categories)
    counts = np.bincount(categories, minlength=num_categories)
    with np.errstate(invalid='ignore'):
        means = np.bincount(categories, ious, minlength=num_categories) / counts
    return dict(IoU=means, class_mIoU=float(np.nanmean(means)), instance_mIoU=float(ious.mean()))
