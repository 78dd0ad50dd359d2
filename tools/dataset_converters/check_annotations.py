"""List every fault of annotations of your own, with file and id. Nothing is changed.

    python tools/dataset_converters/check_annotations.py FILE.json [IMAGES]
    python tools/dataset_converters/check_annotations.py IMAGES MASKS [--num-classes 11] [--ignore-index 255]

FILE.json has objects in COCO's format; with the folder IMAGES its pictures are read too. MASKS is a folder of masks
with the names of the pictures, as mmsegmentation's BaseSegDataset takes them. The exit status is 1 if there are faults.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help="a file in COCO's format, or a folder of pictures")
    parser.add_argument('other', type=Path, nargs='?', help='the pictures of the file, or the masks of the pictures')
    parser.add_argument('--num-classes', type=int, metavar='N', help='labels in masks are 0 to N - 1')
    parser.add_argument(
        '--ignore-index', type=int, nargs='*', default=[255], metavar='LABEL', help='of no class (default: 255)'
    )
    parser.add_argument('--reduce-zero-label', action='store_true', help='0 is no class, labels are 1 to N')
    parser.add_argument('--mask-suffix', default='.png', help='end of the names of masks (default: %(default)s)')
    args = parser.parse_args()
    if args.source.is_dir() and args.other is None:
        parser.error(f'{args.source} is a folder of pictures: name the folder of their masks as well')
    return args


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import json
import sys
from collections import Counter
from collections.abc import Iterator

from mmmap.datasets.annotation_faults import Fault
from mmmap.datasets.coco_faults import coco_faults
from mmmap.datasets.mask_faults import MaskFolder
from mmmap.engine.error_report import one_line_errors
from mmmap.utils.errors import UserError


def show(faults: Iterator[Fault]) -> int:
    """Print faults as they are found. Returns their number."""
    count = 0
    for fault in faults:
        print(fault, flush=True)
        count += 1
    return count


def check_file(path: Path, folder: Path | None) -> int:
    """Check a file in COCO's format, and say what it holds. Returns the number of faults."""
    count = show(coco_faults(path, folder))
    try:
        content = json.loads(path.read_bytes().decode('utf-8-sig'))
        sizes = {key: len(content[key]) for key in ('images', 'annotations', 'categories')}
        objects = Counter(entry['category_id'] for entry in content['annotations'])
        names = [f'{entry["name"]} {objects[entry["id"]]:,}' for entry in content['categories']]
    except (OSError, ValueError, KeyError, TypeError):
        return count  # A fault that is named above.
    print(f'{path}: {", ".join(f"{number:,} {key}" for key, number in sizes.items())}')
    print(f'objects of each class: {", ".join(names)}')
    return count


def check_masks(args: argparse.Namespace) -> int:
    """Check a folder of pictures and one of masks, and say what labels there are. Returns the number of faults."""
    folder = MaskFolder(
        args.source, args.other, args.num_classes, args.ignore_index, args.reduce_zero_label, args.mask_suffix
    )
    count = show(folder.faults())
    total = sum(folder.labels.values())
    shares = [f'{label} {100 * number / total:.2f} %' for label, number in sorted(folder.labels.items())]
    if shares:
        print(f'pixels of each label: {", ".join(shares)}')
    return count


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        if not args.source.exists():
            raise UserError(f'there is no file or folder {args.source}')
        if args.other is not None and not args.other.is_dir():
            raise UserError(f'folder not found: {args.other}')
        count = check_masks(args) if args.source.is_dir() else check_file(args.source, args.other)
    print(f'{count} fault{"" if count == 1 else "s"}' if count else 'no faults')
    sys.exit(1 if count else 0)


if __name__ == '__main__':
    main()
