"""Convert S3DIS (Stanford3dDataset_v1.2_Aligned_Version) to one .npz file per room: xyz, rgb, label.

Labels come from the names of the files in AREA/ROOM/Annotations (chair_1.txt). Names that are not among the 13 classes,
such as 'stairs', become 'clutter'. The release may be incomplete: missing rooms are counted and listed. An interrupted
run continues when it is started again; a room whose files have changed is converted again.
"""

import argparse
import io
import re
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='the folder Stanford3dDataset_v1.2_Aligned_Version')
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('data/s3dis'),
        metavar='DIR',
        help='root of the data set (default: %(default)s)',
    )
    return parser.parse_args()


if __name__ == '__main__':
    # Before the imports, which take seconds.
    parse_args()


import numpy as np
from rich.progress import track

from mmmap.datasets.missing_files import report_missing
from mmmap.datasets.scenes import S3DISScenes
from mmmap.engine.error_report import one_line_errors
from mmmap.structures.point_checks import to_floats
from mmmap.structures.scene_files import is_scene, write_scene
from mmmap.utils.errors import UserError
from mmmap.utils.origin_mark import Origin

CLASSES = S3DISScenes.METAINFO['classes']
#: Rooms of each area, 272 in all.
ROOMS = {'Area_1': 44, 'Area_2': 40, 'Area_3': 23, 'Area_4': 49, 'Area_5': 68, 'Area_6': 48}
#: Version of the conversion. It is raised if the same files give another room.
HOW = f'1 {CLASSES}'
#: The release has one in Area_5/hallway_6/Annotations/ceiling_1.txt, between two numbers.
CONTROL_CHARACTER = re.compile(rb'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]')


def list_rooms(source: Path, area: str) -> tuple[list[Path], list[Path]]:
    """Folders of an area's rooms.

    Args:
        source (Path): The release.
        area (str): Such as 'Area_1'.

    Returns:
        tuple[list[Path], list[Path]]: The folders by name; what is missing of the area.
    """
    folder = source / area
    if not folder.is_dir():
        return [], [folder]
    rooms = sorted(path for path in folder.iterdir() if path.is_dir())
    missing = [room / 'Annotations' for room in rooms if not annotations_of(room)]
    return [room for room in rooms if room / 'Annotations' not in missing], missing


def repair(line: bytes) -> list[bytes]:
    """The numbers of a line. A control character in it may stand for a space or for nothing."""
    for replacement in (b' ', b''):
        words = CONTROL_CHARACTER.sub(replacement, line).split()
        if len(words) == 6:
            break
    return words


def read_points(path: Path) -> tuple[np.ndarray, list[int]]:
    """Read a file of 'x y z r g b' lines.

    Args:
        path (Path): The file.

    Returns:
        tuple[np.ndarray, list[int]]: Its points, shape (N, 6), and the lines that were repaired, from 1.

    Raises:
        UserError: If a line is not six numbers, or there is no line. The message names it.
    """
    content, repaired = path.read_bytes(), []
    if CONTROL_CHARACTER.search(content):
        lines = content.splitlines()
        repaired = [number for number, line in enumerate(lines, 1) if CONTROL_CHARACTER.search(line)]
        for number in repaired:
            lines[number - 1] = b' '.join(repair(lines[number - 1]))
        content = b'\n'.join(lines)
    try:
        points = np.loadtxt(io.BytesIO(content), comments=None, ndmin=2) if content.strip() else np.empty((0, 6))
    except ValueError:
        points = None
    if points is None or points.shape[1] != 6:
        raise UserError(f'{path}:{first_bad_line(content)}: not a line of six numbers, x y z r g b')
    if not len(points):
        raise UserError(f'{path} is empty')
    rgb = points[:, 3:]
    if not (np.isfinite(points).all() and rgb.min() >= 0 and rgb.max() <= 255 and (rgb == np.floor(rgb)).all()):
        raise UserError(f'{path}: a coordinate is not finite or a colour is not a whole number from 0 to 255')
    return points, repaired


def first_bad_line(content: bytes) -> int:
    """Number of the first line that is not six numbers, from 1; 1 if there is none."""
    for number, line in enumerate(content.splitlines(), 1):
        words = line.split()
        try:
            [float(word) for word in words]
        except ValueError:
            return number
        if words and len(words) != 6:
            return number
    return 1


def class_of(path: Path) -> int:
    """The class in the name of an annotation file, such as ``chair_1.txt``."""
    name = path.stem.rsplit('_', 1)[0]
    return CLASSES.index(name if name in CLASSES else 'clutter')


def annotations_of(room: Path) -> list[Path]:
    """The files of a room that are read."""
    return sorted((room / 'Annotations').glob('*.txt'))


def read_room(room: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Join the annotations of a room.

    Args:
        room (Path): Its folder.

    Returns:
        tuple[dict[str, np.ndarray], list[str]]: ``xyz`` (N, 3) float32, ``rgb`` (N, 3) and ``label`` (N,) uint8; what
        was repaired, one line each.
    """
    points, labels, notes = [], [], []
    for path in annotations_of(room):
        part, repaired = read_points(path)
        points.append(part)
        labels.append(np.full(len(part), class_of(path), np.uint8))
        notes += [f'{path}:{number}: a control character between the numbers, taken out' for number in repaired]
    joined = np.concatenate(points)
    return dict(xyz=to_floats(joined[:, :3]), rgb=joined[:, 3:].astype(np.uint8), label=np.concatenate(labels)), notes


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        rooms = {area: list_rooms(args.source, area) for area in ROOMS}
        missing = [path for _, lacking in rooms.values() for path in lacking]
        if not any(folders for folders, _ in rooms.values()):
            raise UserError(f'no room in {args.source}: it is not Stanford3dDataset_v1.2_Aligned_Version')
        for area, (folders, _) in rooms.items():
            written, notes = 0, []
            for room in track(folders, f'{area}:'):
                target = args.out / area / f'{room.name}.npz'
                origin = Origin(annotations_of(room), HOW)
                if not is_scene(target, origin):
                    mark = origin.mark()
                    arrays, repaired = read_room(room)
                    write_scene(target, mark, **arrays)
                    written += 1
                    notes += repaired
            for note in notes:
                print(note)
            count = len(list((args.out / area).glob('*.npz')))
            # An earlier run may have converted rooms that this source lacks.
            if count != len(folders) == ROOMS[area]:
                raise UserError(
                    f'{args.out / area} has {count} files *.npz, {len(folders)} expected: remove the others'
                )
            print(f'{args.out / area}: {len(folders)} rooms, {written} written')
        report_missing({area: (len(rooms[area][0]), count) for area, count in ROOMS.items()}, missing, args.out)


if __name__ == '__main__':
    main()
