"""Unpack and check COCO 2017, in the layout of the configs.

An interrupted run continues when it is started again. The archives (https://cocodataset.org/#download) are
train2017.zip, val2017.zip and annotations_trainval2017.zip; unpacked files need no archive.
"""

import argparse
import json
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('archives', type=Path, help='folder with the downloaded archives')
    parser.add_argument(
        '--out', type=Path, default=Path('data/coco'), metavar='DIR', help='root of the data set (default: %(default)s)'
    )
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


from mmmap.engine.error_report import one_line_errors
from mmmap.utils.archives import unpack_zip
from mmmap.utils.errors import UserError

#: Images of each split.
IMAGES = {'train2017': 118_287, 'val2017': 5_000}
ANNOTATIONS = 'annotations_trainval2017'
KEYS = ('images', 'annotations', 'categories')


def unpack(archives: Path, name: str, out: Path, needed: bool) -> None:
    """Unpack one archive.

    Args:
        archives (Path): The folder that holds it.
        name (str): Its name without '.zip'.
        out (Path): The root of the data set.
        needed (bool): Whether it is an error that it is not there.

    Raises:
        UserError: If it is needed and not there, or damaged.
    """
    archive = archives / f'{name}.zip'
    if not archive.is_file():
        if needed:
            raise UserError(f'{archive} not found: download it from https://cocodataset.org/#download')
        return
    try:
        written = unpack_zip(archive, out)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(f'{archive}: {written} files written')


def count_images(out: Path, split: str) -> int:
    """Number of images of a split in the data set."""
    return sum(path.suffix == '.jpg' for path in (out / split).iterdir()) if (out / split).is_dir() else 0


def check_annotations(path: Path, split: str, images: set[str]) -> str:
    """Read a file of annotations and compare it with the images.

    Args:
        path (Path): The file.
        split (str): Its split.
        images (set[str]): File names of the images that are there.

    Returns:
        str: What it holds, in one line.

    Raises:
        UserError: If it is missing, damaged, or lists other images.
    """
    if not path.is_file():
        raise UserError(f'{path} not found: {ANNOTATIONS}.zip should hold it')
    try:
        content = json.loads(path.read_bytes())
        listed = {image['file_name'] for image in content['images']}
        counts = [len(content[key]) for key in KEYS]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} is damaged ({type(error).__name__}: {error}): delete it and start again') from error
    if missing := listed - images:
        raise UserError(f'{path} lists {len(missing)} images that are not in {split}, {min(missing)} among them')
    return f'{path}: ' + ', '.join(f'{count:,} {key}' for count, key in zip(counts, KEYS, strict=True))


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        if not args.archives.is_dir():
            raise UserError(f'folder not found: {args.archives}')
        for split, expected in IMAGES.items():
            unpack(args.archives, split, args.out, needed=count_images(args.out, split) < expected)
        files = {split: args.out / 'annotations' / f'instances_{split}.json' for split in IMAGES}
        unpack(args.archives, ANNOTATIONS, args.out, needed=not all(path.is_file() for path in files.values()))
        for split, expected in IMAGES.items():
            found = count_images(args.out, split)
            if found != expected:
                raise UserError(f'{args.out / split} has {found:,} images, {expected:,} expected')
            images = {path.name for path in (args.out / split).iterdir()}
            print(f'{args.out / split}: {found:,} images')
            print(check_annotations(files[split], split, images))


if __name__ == '__main__':
    main()
