"""What confusion counts tell of a segmentation."""

from collections.abc import Sequence

import numpy as np

from mmmap.structures.scene_files import check_classes


def confusion_counts(
    truth: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int = 255
) -> np.ndarray:
    """Count how often each class was taken for each.

    Args:
        truth (np.ndarray): True classes, shape (N,).
        prediction (np.ndarray): Predicted classes, shape (N,).
        num_classes (int): Number of classes.
        ignore_index (int): Points with this true class are left out. Defaults to 255.

    Returns:
        np.ndarray: Counts, a row a true class, shape (num_classes, num_classes), int64.

    Raises:
        ValueError: If the lengths differ, or a class is not one of them.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f'{len(prediction)} predictions for {len(truth)} points')
    kept = truth != ignore_index
    truth = check_classes(truth[kept], num_classes, 'true labels')
    prediction = check_classes(prediction[kept], num_classes, 'predicted labels')
    counts = np.bincount(num_classes * truth + prediction, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def segmentation_scores(counts: np.ndarray) -> dict[str, float | np.ndarray]:
    """Scores of a segmentation.

    Args:
        counts (np.ndarray): Confusion counts, a row a true class, shape (C, C).

    Returns:
        dict[str, float | np.ndarray]: In percent: ``IoU`` and ``Acc`` (recall) of each class, shape (C,), nan for a
        class that is neither there nor predicted, or not there; their means over the other classes, ``mIoU`` and
        ``mAcc``; ``OA``, the share of all points.

    Raises:
        ValueError: If nothing was counted.
    """
    counts = np.asarray(counts, np.float64)
    if not counts.sum():
        raise ValueError('no point with a label: there is nothing to evaluate')
    right, true, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    with np.errstate(invalid='ignore'):
        iou, acc = 100 * right / (true + predicted - right), 100 * right / true
    return dict(
        IoU=iou,
        Acc=acc,
        mIoU=float(np.nanmean(iou)),
        mAcc=float(np.nanmean(acc)),
        OA=float(100 * right.sum() / counts.sum()),
    )


def score_table(counts: np.ndarray, classes: Sequence[str]) -> str:
    """A table of the scores of each class and of their means.

    Args:
        counts (np.ndarray): Confusion counts, a row a true class, shape (C, C).
        classes (Sequence[str]): Names of the classes.

    Returns:
        str: Several lines.
    """
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
