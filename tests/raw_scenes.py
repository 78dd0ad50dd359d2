"""Generated scenes in the raw layouts of S3DIS, ScanNet v2 and the LiDAR tiles, with few points."""

from pathlib import Path

import numpy as np

from mmmap.structures.scene_files import write_scene

#: Rooms of each generated area.
AREAS = {f'Area_{i}': 1 for i in range(1, 7)} | {'Area_5': 2}
SCANS = {'train': 2, 'val': 1, 'test': 1}
# NYU40 classes of the scans: wall, floor, blinds (13, none of the benchmark) and otherfurniture.
NYU40 = (1, 2, 13, 39)


def box(rng: np.random.Generator, count: int, low: tuple, high: tuple) -> np.ndarray:
    """Random points in a box with random colours, 'x y z r g b' in a row."""
    return np.concatenate([rng.uniform(low, high, (count, 3)).round(3), rng.integers(0, 256, (count, 3))], axis=1)


def write_s3dis(root: Path, areas: dict[str, int] = AREAS) -> Path:
    """A release of small rooms; each has a floor, two chairs, stairs and something unknown."""
    for area, count in areas.items():
        for number in range(1, count + 1):
            room = root / area / f'office_{number}'
            (room / 'Annotations').mkdir(parents=True)
            rng = np.random.default_rng(number + 10 * int(area[-1]))
            parts = {
                'floor_1': box(rng, 120, (-2, 1, 0), (0, 3, 0.01)),
                'chair_1': box(rng, 60, (-2, 1, 0.3), (-1.5, 1.5, 1)),
                'chair_2': box(rng, 40, (-0.5, 2.5, 0.3), (0, 3, 1)),
                'stairs_1': box(rng, 20, (-1, 1, 0), (-0.5, 2, 2)),
                'lamp_1': box(rng, 10, (-1, 2, 2), (-0.9, 2.1, 2.2)),
            }
            for name, points in parts.items():
                rows = [[*(f'{x:.3f}' for x in row[:3]), *(f'{c:.0f}' for c in row[3:])] for row in points]
                text = '\n'.join(map(' '.join, rows))
                (room / 'Annotations' / f'{name}.txt').write_text(text + '\n')
            joined = '\n'.join(path.read_text().strip() for path in sorted((room / 'Annotations').glob('*.txt')))
            (room / f'{room.name}.txt').write_text(joined + '\n')
        # What lies beside the rooms in the release.
        (root / area / f'{area}_alignmentAngle.txt').write_text('## Global alignment angle per disjoint space\n')
        (root / area / '.DS_Store').write_bytes(b'\x00\x01')
    return root


def write_mesh(path: Path, points: np.ndarray, labels: np.ndarray | None = None) -> None:
    """A mesh as ScanNet has them: vertices with colours, perhaps labels, and faces, binary."""
    fields = [(name, '<f4') for name in 'xyz'] + [(name, 'u1') for name in ('red', 'green', 'blue', 'alpha')]
    lines = [f'property float {name}' for name in 'xyz']
    lines += [f'property uchar {name}' for name in ('red', 'green', 'blue', 'alpha')]
    if labels is not None:
        fields.append(('label', '<u2'))
        lines.append('property ushort label')
    vertices = np.zeros(len(points), fields)
    for (name, _), column in zip(fields, points.T, strict=False):
        vertices[name] = column
    vertices['alpha'] = 255
    if labels is not None:
        vertices['label'] = labels
    faces = np.zeros(5, [('count', 'u1'), ('corners', '<i4', 3)])
    faces['count'] = 3
    header = ['ply', 'format binary_little_endian 1.0', 'comment VCGLIB generated', f'element vertex {len(points)}']
    header += [*lines, 'element face 5', 'property list uchar int vertex_indices', 'end_header', '']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes('\n'.join(header).encode() + vertices.tobytes() + faces.tobytes())


def write_scannet(root: Path, scans: dict[str, int] = SCANS) -> Path:
    """A release of small scans; a quarter of each is of each of the classes of ``NYU40``."""
    number = 0
    for split, count in scans.items():
        names = []
        for _ in range(count):
            name = f'scene{number:04}_00'
            rng = np.random.default_rng(number)
            folder = root / ('scans_test' if split == 'test' else 'scans') / name
            points = box(rng, 400, (0, 0, 0), (3, 2, 2))
            write_mesh(folder / f'{name}_vh_clean_2.ply', points)
            if split != 'test':
                write_mesh(folder / f'{name}_vh_clean_2.labels.ply', points, np.repeat(NYU40, 100))
            names.append(name)
            number += 1
        (root / f'scannetv2_{split}.txt').write_text('\n'.join(names) + '\n')
    return root


def write_tiles(root: Path) -> Path:
    """Two LiDAR tiles for training and one for a test, with the labels 0 (unclassified), 1 and 5."""
    for number, name in enumerate(('train_77050', 'train_77055', 'test_77060')):
        rng = np.random.default_rng(number)
        xyz = rng.uniform(0, (20, 20, 3), (900, 3)).astype(np.float32)
        label = np.where(xyz[:, 2] > 1, 5, 1).astype(np.uint8)
        label[:50] = 0
        intensity = rng.integers(70, 2000, 900).astype(np.uint16)
        write_scene(root / f'{name}.npz', xyz=xyz, label=label, intensity=intensity)
    return root
