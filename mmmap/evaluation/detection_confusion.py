"""Confusion counts of detections: which true class was found as which."""

import numpy as np


def box_overlaps(boxes: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU of boxes with others, and the share of each box that lies in each other.

    Args:
        boxes (np.ndarray): Left, top, right, bottom, shape (N, 4).
        others (np.ndarray): Likewise, shape (M, 4).

    Returns:
        tuple[np.ndarray, np.ndarray]: IoU and share, each of shape (N, M); 0 for boxes without area.
    """
    boxes, others = (np.asarray(part, np.float64).reshape(-1, 4) for part in (boxes, others))
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    opposite = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(-1)
    areas, other_areas = (np.clip(part[:, 2:] - part[:, :2], 0, None).prod(-1) for part in (boxes, others))
    union = areas[:, None] + other_areas[None] - shared
    iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    share = np.divide(shared, areas[:, None], out=np.zeros_like(shared), where=areas[:, None] > 0)
    return iou, share


def detection_confusion(
    truth: dict[str, np.ndarray],
    found: dict[str, np.ndarray],
    num_classes: int,
    iou_thr: float = 0.5,
    score_thr: float = 0.3,
) -> np.ndarray:
    """Count how often each true class was found as each class in one image.

    A detection takes the free object of its own class that it overlaps most, the detection with the highest score
    first. Detections that are left take an object of another class in the same way. Each object is taken once: what is
    left of the objects was missed, what is left of the detections is of no object.

    Args:
        truth (dict[str, np.ndarray]): ``bboxes`` (N, 4), ``labels`` (N,) and ``ignored`` (N,), bool. A detection that
            lies in an ignored box by a share of ``iou_thr`` is not counted if it takes no object.
        found (dict[str, np.ndarray]): ``bboxes`` (M, 4), ``labels`` (M,) and ``scores`` (M,).
        num_classes (int): Number of classes.
        iou_thr (float): Least IoU of an object with a detection. Defaults to 0.5.
        score_thr (float): Detections with a lower score are not counted. Defaults to 0.3.

    Returns:
        np.ndarray: Counts, one row per true class, shape (num_classes + 1, num_classes + 1), int64. The last row counts
        detections of no object, the last column objects that were missed.
    """
    ignored = np.asarray(truth['ignored'], bool)
    boxes, labels = np.asarray(truth['bboxes']).reshape(-1, 4), np.asarray(truth['labels'], np.int64)
    order = np.argsort(-np.asarray(found['scores']), kind='stable')
    order = order[np.asarray(found['scores'])[order] >= score_thr]
    found_boxes, found_labels = found['bboxes'][order], np.asarray(found['labels'], np.int64)[order]
    iou, _ = box_overlaps(found_boxes, boxes[~ignored])
    _, share = box_overlaps(found_boxes, boxes[ignored])
    labels = labels[~ignored]
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    free = np.ones(len(labels), bool)
    rest = list(range(len(order)))
    for same_class in (True, False):
        left = []
        for index in rest:
            takes = free & (iou[index] >= iou_thr)
            if same_class:
                takes &= labels == found_labels[index]
            if takes.any():
                taken = int(np.argmax(np.where(takes, iou[index], -1)))
                counts[labels[taken], found_labels[index]] += 1
                free[taken] = False
            else:
                left.append(index)
        rest = left
    of_nothing = [index for index in rest if not (share[index] >= iou_thr).any()]
    counts[:-1, -1] = np.bincount(labels[free], minlength=num_classes)
    counts[-1, :-1] = np.bincount(found_labels[of_nothing], minlength=num_classes)
    return counts
