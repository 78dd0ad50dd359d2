"""Sum the confusion counts of several tests, such as the six folds of S3DIS, and print the scores of the sum.

    python tools/analysis_tools/sum_confusions.py FOLD1.json FOLD2.json ...

The files are written by SceneSegMetric(confusion_file=...). The mIoU of the sum is not the mean of the folds' mIoU, in
which small folds count as much as large ones. Classes are matched by name: a file may lack some, in any order.
"""

import argparse
import json
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('files', type=Path, nargs='+', help='JSON files with confusion counts, one per fold')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import numpy as np

from mmmap.engine.error_report import one_line_errors
from mmmap.evaluation import score_table, segmentation_scores
from mmmap.utils.class_names import class_positions
from mmmap.utils.errors import UserError


def read_counts(path: Path) -> tuple[list[str], np.ndarray]:
    """Read the classes and counts of a file.

    Args:
        path (Path): The file.

    Returns:
        tuple[list[str], np.ndarray]: Names of the C classes, and counts of shape (C, C).

    Raises:
        UserError: If it is missing or has no confusion counts.
    """
    if not path.is_file():
        raise UserError(f'confusion counts not found: {path}')
    try:
        content = json.loads(path.read_text())
        classes, counts = list(content['classes']), np.array(content['counts'], np.int64)
    except (ValueError, KeyError, TypeError):
        counts = None
    if counts is None or counts.shape != (len(classes), len(classes)):
        raise UserError(f'{path}: has no confusion counts as SceneSegMetric(confusion_file=...) writes them')
    return classes, counts


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        folds = [read_counts(path) for path in args.files]
        # The file with the most classes: others may lack some.
        source, classes = max(zip(args.files, (fold[0] for fold in folds), strict=True), key=lambda fold: len(fold[1]))
        total = np.zeros([len(classes)] * 2, np.int64)
        for path, (own, counts) in zip(args.files, folds, strict=True):
            places = class_positions(own, classes, str(path), str(source)) or range(len(classes))
            total[np.ix_(places, places)] += counts
            scores = segmentation_scores(counts)
            print(f'{path}: mIoU {scores["mIoU"]:.2f}, mAcc {scores["mAcc"]:.2f}, OA {scores["OA"]:.2f}')
        print(score_table(total, classes))


if __name__ == '__main__':
    main()
