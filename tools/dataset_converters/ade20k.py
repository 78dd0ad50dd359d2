"""Unpack and check the scene parsing benchmark of ADE20K, in the layout of the configs.

An interrupted run continues when it is started again. The archive is ADEChallengeData2016.zip
(http://sceneparsing.csail.mit.edu); without it, the unpacked files are checked.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('archive', type=Path, nargs='?', help='ADEChallengeData2016.zip')
    parser.add_argument(
        '--out', type=Path, default=Path('data/ade'), metavar='DIR', help='root of the data set (default: %(default)s)'
    )
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


from mmmap.engine.error_report import one_line_errors
from mmmap.utils.archives import unpack_zip
from mmmap.utils.errors import UserError

#: Folder in the archive and under the root, where mmseg's configs expect it.
NAME = 'ADEChallengeData2016'
#: Images of each split, and as many annotations.
IMAGES = {'training': 20_210, 'validation': 2_000}
SUFFIXES = {'images': '.jpg', 'annotations': '.png'}


def part_of_the_benchmark(name: str) -> str | None:
    """The path of a file of the benchmark, None for other files in the archive."""
    return name if name.split('/')[0] == NAME and not Path(name).name.startswith('.') else None


def unpack(archive: Path, out: Path) -> int:
    """Unpack the files of the archive that do not exist yet.

    Args:
        archive (Path): The archive.
        out (Path): The folder that gets ``ADEChallengeData2016``.

    Returns:
        int: Number of files written.

    Raises:
        UserError: If the archive is missing or damaged.
    """
    if not archive.is_file():
        raise UserError(f'archive not found: {archive}')
    try:
        return unpack_zip(archive, out, part_of_the_benchmark)
    except ValueError as error:
        raise UserError(str(error)) from error


def check_split(root: Path, split: str, expected: int) -> None:
    """Check that a split has its images, each with its annotation.

    Args:
        root (Path): The folder ``ADEChallengeData2016``.
        split (str): 'training' or 'validation'.
        expected (int): How many images it should have.

    Raises:
        UserError: If one is missing. The message names it.
    """
    names = {}
    for kind, suffix in SUFFIXES.items():
        folder = root / kind / split
        if not folder.is_dir():
            raise UserError(f'{folder} not found: give the archive {NAME}.zip')
        names[kind] = {path.stem for path in folder.iterdir() if path.suffix == suffix}
        if len(names[kind]) != expected:
            raise UserError(f'{folder} has {len(names[kind]):,} files *{suffix}, {expected:,} expected')
    if alone := names['images'] - names['annotations']:
        raise UserError(f'{root / "annotations" / split} has no {min(alone)}.png, of which there is an image')


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        if args.archive is not None:
            print(f'{args.archive}: {unpack(args.archive, args.out):,} files written')
        for split, expected in IMAGES.items():
            check_split(args.out / NAME, split, expected)
            print(f'{args.out / NAME}: {expected:,} images and annotations of {split}')


if __name__ == '__main__':
    main()
