"""Check and prepare the release of a data set of shapes: every list, file, shape and label is read once.

The files stay as they were released. Beside each text file of ModelNet40 and ShapeNetPart an array is written, so that
training need not parse the text; it is written again if the text changes. An interrupted run continues when it is
started again. A text that was cut off at the end of a line is noticed in ModelNet40, where all shapes have the same
number of points, and where an array of the whole text exists.

    modelnet40       modelnet40_normal_resampled: modelnet40_{train,test}.txt, CLASS/CLASS_0001.txt
    modelnet-fewshot ModelNetFewshot: {5,10}way_{10,20}shot/{0..9}.pkl
    scanobjectnn     main_split/*.h5, main_split_nobg/*.h5
    shapenet55       ShapeNet-55/{train,test}.txt, shapenet_pc/*.npy
    shapenetpart     shapenetcore_partanno_segmentation_benchmark_v0_normal: synsetoffset2category.txt,
                     train_test_split/*.json, SYNSET/MODEL.txt
"""

import argparse
from pathlib import Path

#: The parts of each release: name, arguments of the data set, and number of shapes.
PARTS = {
    'modelnet40': [
        ('train', dict(type='ModelNet40', split='train'), 9843),
        ('test', dict(type='ModelNet40', split='test'), 2468),
    ],
    'modelnet-fewshot': [
        (
            f'{way}-way {shot}-shot, fold {fold}, {split}',
            dict(type='ModelNetFewShot', way=way, shot=shot, fold=fold, split=split),
            way * (shot if split == 'train' else 20),
        )
        for way in (5, 10)
        for shot in (10, 20)
        for fold in range(10)
        for split in ('train', 'test')
    ],
    'scanobjectnn': [
        (f'{variant} {split}', dict(type='ScanObjectNN', variant=variant, split=split), count)
        for variant, counts in (('obj_bg', (2309, 581)), ('obj_only', (2309, 581)), ('pb_t50_rs', (11416, 2882)))
        for split, count in zip(('train', 'test'), counts, strict=True)
    ],
    'shapenet55': [
        ('train', dict(type='ShapeNet55', split='train'), 41952),
        ('test', dict(type='ShapeNet55', split='test'), 10518),
    ],
    'shapenetpart': [
        ('train', dict(type='ShapeNetPart', split='train'), 12137),
        ('val', dict(type='ShapeNetPart', split='val'), 1870),
        ('test', dict(type='ShapeNetPart', split='test'), 2874),
    ],
}


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('release', choices=sorted(PARTS), help='name of the release')
    parser.add_argument('folder', type=Path, help='its folder')
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


from rich.progress import track

from mmmap.datasets import PackPointInputs
from mmmap.engine.error_report import one_line_errors
from mmmap.registry import DATASETS
from mmmap.utils.errors import UserError


def check(name: str, dataset: dict, folder: Path) -> int:
    """Read a part of a release.

    Args:
        name (str): What it is called.
        dataset (dict): Its data set, without folder and pipeline.
        folder (Path): The release.

    Returns:
        int: How many are there.

    Raises:
        UserError: If a file is missing or damaged.
    """
    try:
        shapes = DATASETS.build(dict(dataset, data_root=str(folder), pipeline=[PackPointInputs()]))
        for index in track(range(len(shapes)), f'{name}:'):
            shapes[index]
    except (ValueError, OSError, ImportError) as error:
        raise UserError(str(error)) from None
    return len(shapes)


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        for name, dataset, count in PARTS[args.release]:
            found = check(name, dataset, args.folder)
            note = '' if found == count else f' (INCOMPLETE: the release has {count:,})'
            print(f'{args.folder}: {found:,} shapes of {name}{note}')


if __name__ == '__main__':
    main()
