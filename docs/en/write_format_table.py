"""Write the table of image formats: what the loaders of mmmap and of mmcv make of a file of every kind.

    python docs/en/write_format_table.py [FILE]

Without a file it is printed; in a file it takes the place of what stands between its two marks.
"""

import argparse
import sys
from pathlib import Path

import cv2
import mmcv
import numpy as np
import PIL

sys.path.insert(0, str(Path(__file__).parents[2] / 'tests'))

from image_samples import Sample, samples

from mmmap.datasets.image_reader import read_image
from mmmap.engine.error_report import one_line_errors
from mmmap.utils.errors import UserError

BEGIN, END = '<!-- image formats: begin -->', '<!-- image formats: end -->'


def read(reader, content: bytes) -> np.ndarray | None:
    """What a reader makes of a file, None if it refuses."""
    try:
        return reader(content)
    except (OSError, cv2.error):
        return None


def difference(theirs: np.ndarray | None, ours: np.ndarray | None) -> int | None:
    """Greatest difference, of 255; None if at most one of the two is an image, or they differ in shape."""
    if theirs is None or ours is None or theirs.shape != ours.shape:
        return None
    return int(np.abs(theirs.astype(int) - ours).max())


def row(group: list[Sample]) -> str:
    """The line of a kind."""
    theirs, ours = ([read(reader, s.content) for s in group] for reader in (mmcv.imfrombytes, read_image))
    cells = ['refused' if any(img is None for img in images) else 'read' for images in (theirs, ours)]
    differences = [difference(*pair) for pair in zip(theirs, ours, strict=True)]
    if cells == ['read', 'read'] and None not in differences:
        greatest = max(differences)
        cells.append(f'up to {greatest} of 255: {group[0].note}' if greatest else 'none')
    else:
        cells.append(group[0].note or 'none')
    return '| ' + ' | '.join([group[0].name, *cells]) + ' |'


def versions() -> str:
    """The libraries that read."""
    return f'OpenCV {cv2.__version__}, Pillow {PIL.__version__}'


def table() -> str:
    """The table in Markdown, without the formats that this build of Pillow lacks."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples():
        if sample.available:
            groups.setdefault(sample.name, []).append(sample)
    head = ['| format | mmcv | mmmap | difference |', '|---|---|---|---|']
    return '\n'.join([*head, *map(row, groups.values()), '', f'{versions()}.'])


def update(text: str) -> str:
    """A page with the table between its marks.

    Raises:
        UserError: If it has not both marks, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise UserError(f'the page has no marks: write {BEGIN} and {END} where the table is to stand')
    return f'{before}{begin}\n{table()}\n{end}{after}'


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('file', nargs='?', type=Path, help='a page with marks')
    args = parser.parse_args()
    with one_line_errors():
        if args.file is None:
            print(table())
        else:
            args.file.write_text(update(args.file.read_text()))


if __name__ == '__main__':
    main()
