"""Names of output files for scenes and clouds."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def output_names(paths: Iterable[str | Path]) -> dict[str, str]:
    """Name output files after scenes or clouds, so that none overwrites another.

    A name contains the folder and the file, because S3DIS has an ``office_1`` in every area: ``Area_1_office_1`` for
    ``data/Area_1/office_1.npz``, ``data_shapes_points_7`` for ``data/shapes.npz:points[7]``. If a name is taken, a
    number is appended.

    Args:
        paths (Iterable[str | Path]): All inputs. Repeated paths count once.

    Returns:
        dict[str, str]: The name for each path.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in map(str, paths):
        if path in names:
            continue
        place = Path(path).absolute()
        stem = re.sub(r'\.\w+(:|$)', r'\1', place.name)
        base = re.sub(r'[^\w-]+', '_', f'{place.parent.name}_{stem}').strip('_')
        name, number = base, 1
        while name in taken:
            number += 1
            name = f'{base}_{number}'
        taken.add(name)
        names[path] = name
    return names


def dataset_names(dataset: Any) -> dict[str, str]:
    """:func:`output_names` for a data set or a wrapper of one. Empty if its samples have no ``lidar_path``."""
    infos = (dataset.get_data_info(i) for i in range(len(dataset))) if hasattr(dataset, 'get_data_info') else ()
    return output_names(info['lidar_path'] for info in infos if 'lidar_path' in info)
