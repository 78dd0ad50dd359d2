"""Convert ScanNet v2 as released to one .npz file per scan: xyz, rgb, label.

The folder of the release has scans/SCENE/SCENE_vh_clean_2.ply with SCENE_vh_clean_2.labels.ply, whose property 'label'
is an NYU40 class, scans_test/SCENE/SCENE_vh_clean_2.ply without labels, and scannetv2_train.txt, scannetv2_val.txt and
scannetv2_test.txt. The release may be incomplete: missing scans are counted and listed. The 20 classes of the benchmark
get the labels 0 to 19 in their order, all others 255. An interrupted run continues when it is started again; a scan
whose files have changed is converted again.
"""

import argparse
from pathlib import Path


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='folder with scans and scans_test')
    parser.add_argument(
        '--lists', type=Path, metavar='DIR', help='folder with scannetv2_{train,val,test}.txt (default: the source)'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('data/scannet'),
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
from mmmap.datasets.scenes import ScanNetScenes
from mmmap.engine.error_report import one_line_errors
from mmmap.structures.ply import read_ply
from mmmap.structures.point_checks import check_points, to_colours
from mmmap.structures.scene_files import IGNORED, class_indices, is_scene, write_scene
from mmmap.utils.errors import UserError
from mmmap.utils.origin_mark import Origin

#: Scans of each split, and the folder they are in.
SCANS = {'train': 1201, 'val': 312, 'test': 100}
#: Version of the conversion. It is raised if the same files give another scan.
HOW = f'1 {ScanNetScenes.NYU40_IDS}'
FOLDERS = {'train': 'scans', 'val': 'scans', 'test': 'scans_test'}


def list_scans(source: Path, lists: Path, split: str) -> tuple[set[str], list[Path], list[Path]]:
    """Meshes of a split.

    Args:
        source (Path): The release.
        lists (Path): The folder with the lists of scans.
        split (str): 'train', 'val' or 'test'.

    Returns:
        tuple[set[str], list[Path], list[Path]]: All names in the list; the files ``SCENE_vh_clean_2.ply`` that are
        there with all that belongs to them, in the order of the list; files that are missing.

    Raises:
        UserError: If a scan is listed twice.
    """
    path = lists / f'scannetv2_{split}.txt'
    if not path.is_file():
        return set(), [], [path]
    names = path.read_text().split()
    if len(set(names)) < len(names):
        raise UserError(f'{path} names {max(names, key=names.count)} twice')
    found, missing = [], []
    for name in names:
        mesh = source / FOLDERS[split] / name / f'{name}_vh_clean_2.ply'
        needed = (mesh,) if split == 'test' else (mesh, labels_of(mesh))
        lacking = [file for file in needed if not file.is_file()]
        missing += lacking
        found += [] if lacking else [mesh]
    return set(names), found, missing


def labels_of(mesh: Path) -> Path:
    """The file with the labels of a mesh."""
    return mesh.with_name(f'{mesh.stem}.labels.ply')


def properties(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Properties of a file's vertices, shape (N, len(names))."""
    try:
        vertices = read_ply(path)
    except ValueError as error:
        raise UserError(str(error)) from None
    if missing := set(names) - vertices.keys():
        raise UserError(f'{path}: its vertices have no {min(missing)!r}')
    return np.stack([vertices[name] for name in names], axis=1)


def read_scan(mesh: Path, labelled: bool) -> dict[str, np.ndarray]:
    """Read a scan.

    Args:
        mesh (Path): Its mesh.
        labelled (bool): Whether it has labels.

    Returns:
        dict[str, np.ndarray]: ``xyz`` (N, 3) float32, ``rgb`` (N, 3) uint8 and, where it has labels, ``label`` (N,)
        uint8.

    Raises:
        UserError: If a file is damaged or the labels belong to another mesh.
    """
    scan = dict(xyz=properties(mesh, ('x', 'y', 'z')), rgb=properties(mesh, ('red', 'green', 'blue')))
    try:
        check_points(scan['xyz'], str(mesh))
        scan['rgb'] = to_colours(scan['rgb'], f'{mesh}: rgb')
    except ValueError as error:
        raise UserError(str(error)) from None
    if labelled:
        labels = properties(labels_of(mesh), ('label',))[:, 0]
        if len(labels) != len(scan['xyz']):
            raise UserError(f'{labels_of(mesh)} has {len(labels):,} vertices, its mesh {len(scan["xyz"]):,}')
        scan['label'] = class_indices(labels, ScanNetScenes.NYU40_IDS, name=str(labels_of(mesh))).astype(np.uint8)
        if (scan['label'] == IGNORED).all():
            raise UserError(f'{labels_of(mesh)}: no vertex has a label of the benchmark')
    return scan


def main() -> None:
    """Run the tool."""
    args = parse_args()
    with one_line_errors():
        scans = {split: list_scans(args.source, args.lists or args.source, split) for split in SCANS}
        missing = [file for _, _, lacking in scans.values() for file in lacking]
        if not any(meshes for _, meshes, _ in scans.values()):
            first = f': {missing[0]} is missing, for instance' if missing else ''
            raise UserError(f'no scan of the lists is in {args.source}{first}')
        for split, (names, _, _) in scans.items():
            others = {path.stem for path in (args.out / split).glob('*.npz')} - names
            if names and others:
                raise UserError(f'{args.out / split} has {min(others)}.npz, which is not in the list: remove it')
        for split, (_, meshes, _) in scans.items():
            written = 0
            for mesh in track(meshes, f'{split}:'):
                target = args.out / split / f'{mesh.parent.name}.npz'
                labelled = split != 'test'
                origin = Origin([mesh, labels_of(mesh)] if labelled else [mesh], HOW)
                if not is_scene(target, origin):
                    write_scene(target, origin.mark(), **read_scan(mesh, labelled))
                    written += 1
            print(f'{args.out / split}: {len(meshes):,} scans, {written:,} written')
        report_missing({split: (len(scans[split][1]), count) for split, count in SCANS.items()}, missing, args.out)


if __name__ == '__main__':
    main()
