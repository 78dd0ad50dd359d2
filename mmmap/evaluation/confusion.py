"""Confusion counts of a segmentation, and the scores that they give."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from mmmap.structures.scene_files import check_classes


class SegmentationScores(TypedDict):
    """Scores of a segmentation in percent.

    Attributes:
        IoU (np.ndarray): Of each class, shape (C,); nan for a class that has no point and is never predicted.
        Acc (np.ndarray): Recall of each class, shape (C,); nan for a class that has no point.
        mIoU (float): Mean IoU of the classes that have one.
        mAcc (float): Mean recall of the classes that have one.
        OA (float): Share of all points that are classified correctly.
    """

    IoU: np.ndarray
    Acc: np.ndarray
    mIoU: float
    mAcc: float
    OA: float


def confusion_counts(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count how often each true class was predicted as each class.

    Args:
        truth (np.ndarray): True classes, shape (N,).
        prediction (np.ndarray): Predicted classes, shape (N,).
        num_classes (int): Number of classes.
        ignore_index (int): Points with this true class are not counted. Defaults to 255.

    Returns:
        np.ndarray: Counts, one row per true class, shape (num_classes, num_classes), int64.

    Raises:
        ValueError: If the lengths differ, or a label is not from 0 to num_classes - 1.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'{len(prediction)} predictions for {len(truth)} points')
    kept = truth != ignore_index
    truth = check_classes(truth[kept], num_classes, 'true labels')
    prediction = check_classes(prediction[kept], num_classes, 'predicted labels')
    counts = np.bincount(num_classes * truth + prediction, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def segmentation_scores(counts: np.ndarray) -> SegmentationScores:
    """Scores that follow from confusion counts (C, C), one row per true class.

    Raises:
        ValueError: If all counts are 0.
    """
    counts = np.asarray(counts, np.float64)
    if not counts.sum():
        raise ValueError('no point has a label: there is nothing to evaluate')
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    with np.errstate(invalid='ignore'):
        iou, acc = 100 * right / (true + predicted - right), 100 * right / true
    overall = float(100 * right.sum() / counts.sum())
    return dict(IoU=iou, Acc=acc, mIoU=float(np.nanmean(iou)), mAcc=float(np.nanmean(acc)), OA=overall)


def score_table(counts: np.ndarray, classes: Sequence[str]) -> str:
    """A table of the scores of each class and their means, from confusion counts (C, C) and the C names of classes."""
    scores = segmentation_scores(counts)
    width = max(len('class'), *map(len, classes))
    share = 100 * np.asarray(counts).sum(1) / np.asarray(counts).sum()
    rows = [
        f'{name:{width}}  {iou:6.2f}  {acc:6.2f}  {part:6.2f}'
        for name, iou, acc, part in zip(classes, scores['IoU'], scores['Acc'], share, strict=True)
    ]
    head = f'{"class":{width}}  {"IoU":>6}  {"Acc":>6}  {"points":>6}  (%)'
    means = f'{"mean":{width}}  {scores["mIoU"]:6.2f}  {scores["mAcc"]:6.2f}  OA {scores["OA"]:.2f}'
    return '\n'.join([head, *rows, means])
