"""The base of data sets of shapes, and a data set of arrays in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset

from mmmap.registry import DATASETS
from mmmap.structures.point_checks import check_cloud, to_floats
from mmmap.structures.scene_files import IGNORED, check_classes, whole_numbers


class ShapeDataset(BaseDataset):
    """Base of the data sets of shapes. ``load_data_list`` lists the samples; their points are read on demand."""

    def read_points(self, info: dict) -> dict:
        """Read the points of a sample.

        Args:
            info (dict): The entry of the sample in ``load_data_list``.

        Returns:
            dict: ``points`` (N, 3 + F) and, for parts, ``pts_semantic_mask`` (N,), as stored.
        """
        raise NotImplementedError

    def get_data_info(self, idx: int) -> dict:
        """Read a sample: its entry in ``load_data_list``, ``sample_idx``, points and labels.

        Points are float32, or float64 if float32 would change the shape of the cloud. Labels are int64.

        Raises:
            ValueError: If it has no points, a point is not finite, or a label is not a whole number. One line that
                names the sample.
        """
        info = super().get_data_info(idx)
        info |= self.read_points(info)
        check_cloud(info['points'], info['lidar_path'])
        info['points'] = to_floats(info['points'])
        if 'pts_semantic_mask' in info:
            info['pts_semantic_mask'] = whole_numbers(info['pts_semantic_mask'], info['lidar_path'])
        return info

    def _root(self) -> Path:
        """Return the folder of the data. Raise an error if it is missing."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise FileNotFoundError(f'{type(self).__name__}: folder not found: {root.absolute()}')
        return root

    def _check_option(self, name: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            raise ValueError(f'{type(self).__name__}: {name}={value!r} must be one of {tuple(known)}')


def read_lines(path: Path, layout: str) -> list[str]:
    """Read the lines of a list, without empty ones.

    Args:
        path (Path): The list.
        layout (str): Name of the data set whose layout contains it, for the error.

    Raises:
        ValueError: If it is missing or empty.
    """
    if not path.is_file():
        raise ValueError(f'{path} is missing: the layout of {layout} has this file')
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f'{path} is empty')
    return lines


def consecutive_parts(counts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Number the parts of all categories in one sequence, and list those of each category.

    ``counts`` has the number of parts of each category.
    """
    ends = np.cumsum(counts).tolist()
    return tuple(tuple(range(end - count, end)) for count, end in zip(counts, ends, strict=True))


@DATASETS.register_module()
class PointCloudArrays(ShapeDataset):
    """Clouds of equal size in one ``.npz`` file, such as a few hundred shapes.

    Args:
        ann_file (str): The file.
        keys (dict[str, str]): Names of the arrays for ``points`` (S, N, 3 + F) and, optionally, ``gt_label`` (S,),
            ``category`` (S,) and ``pts_semantic_mask`` (S, N). Parts of all categories are numbered in one sequence.
        classes (str, optional): Name of the array with the names of the classes. Defaults to None.
        categories (str, optional): Name of the array with the names of the categories. Defaults to None.
        parts_per_category (str, optional): Name of the array with the number of parts of each category. They become
            ``category_parts`` in the meta information, and the classes if there are none. Defaults to None.
        data_root (str): Folder of the file. Defaults to ''.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the file is damaged, an array is missing, or arrays do not match.
    """

    KEYS = ('points', 'gt_label', 'category', 'pts_semantic_mask')

    def __init__(
        self,
        ann_file: str,
        keys: dict[str, str],
        classes: str | None = None,
        categories: str | None = None,
        parts_per_category: str | None = None,
        data_root: str = '',
        **kwargs,
    ) -> None:
        if unknown := set(keys) - set(self.KEYS):
            raise ValueError(f'PointCloudArrays: keys has the unknown key {min(unknown)!r}, not one of {self.KEYS}')
        if 'points' not in keys:
            raise ValueError("PointCloudArrays: keys does not name the array of 'points'")
        self.keys = dict(keys)
        self.names = dict(classes=classes, categories=categories, parts_per_category=parts_per_category)
        super().__init__(ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the file, and list ``index``, ``lidar_path`` and the labels of each sample."""
        wanted = {**self.keys, **{key: name for key, name in self.names.items() if name is not None}}
        arrays = self._read(wanted)
        count = len(arrays['points'])
        for key, name in self.keys.items():
            expected = arrays['points'].shape[:2] if key == 'pts_semantic_mask' else (count,)
            if key != 'points' and arrays[key].shape != expected:
                raise ValueError(f'{self.ann_file}: {name} has the shape {arrays[key].shape}, not {expected}')
        self._add_classes(arrays)
        self.arrays = {key: arrays[key] for key in ('points', 'pts_semantic_mask') if key in arrays}
        labels = [key for key in ('gt_label', 'category') if key in arrays]
        return [
            dict(
                index=index,
                lidar_path=f'{self.ann_file}:{self.keys["points"]}[{index}]',
                **{key: int(arrays[key][index]) for key in labels},
            )
            for index in range(count)
        ]

    def _read(self, wanted: dict[str, str]) -> dict[str, np.ndarray]:
        try:
            with np.load(self.ann_file, allow_pickle=False) as content:
                if missing := [name for name in wanted.values() if name not in content.files]:
                    raise ValueError(f'it has no {missing[0]!r}, but {", ".join(content.files)}')
                arrays = {key: content[name] for key, name in wanted.items()}
        except FileNotFoundError:
            raise
        # zipfile, zlib and numpy raise many kinds of errors for a damaged archive.
        except Exception as error:
            raise ValueError(f'{self.ann_file} is damaged or a different file: {error}') from None
        if arrays['points'].ndim != 3 or arrays['points'].shape[2] < 3:
            raise ValueError(f'{self.ann_file}: points have the shape {arrays["points"].shape}, not (S, N, 3 + F)')
        if not len(arrays['points']):
            raise ValueError(f'{self.ann_file}: {wanted["points"]} has no clouds')
        return arrays

    def _add_classes(self, arrays: dict[str, np.ndarray]) -> None:
        """Add the classes to the meta information, and check the labels."""
        meta: dict[str, Any] = {key: tuple(map(str, arrays[key])) for key in ('classes', 'categories') if key in arrays}
        if 'parts_per_category' in arrays:
            counts = arrays['parts_per_category'].tolist()
            meta['category_parts'] = consecutive_parts(counts)
            names = meta.setdefault('categories', tuple(str(i) for i in range(len(counts))))
            if len(names) != len(counts):
                raise ValueError(f'{self.ann_file}: {len(names)} categories, but the parts of {len(counts)}')
            meta.setdefault(
                'classes', tuple(f'{name} {i}' for name, n in zip(names, counts, strict=True) for i in range(n))
            )
        self._metainfo.update(meta)
        for key, known in (('gt_label', 'classes'), ('category', 'categories'), ('pts_semantic_mask', 'classes')):
            if key in arrays:
                name = f'{self.ann_file}: {self.keys[key]}'
                count = len(self.metainfo[known]) if known in self.metainfo else None
                labels = check_classes(arrays[key], count, name, IGNORED if key == 'pts_semantic_mask' else None)
                # Labels of points keep their small type.
                arrays[key] = arrays[key] if key == 'pts_semantic_mask' else labels
        if {'category', 'pts_semantic_mask'} <= arrays.keys():
            for category, parts in enumerate(meta.get('category_parts', ())):
                objects = np.flatnonzero(arrays['category'] == category)
                masks = arrays['pts_semantic_mask'][objects]
                if (wrong := ~np.isin(masks, (*parts, IGNORED))).any():
                    of, point = np.argwhere(wrong)[0]
                    raise ValueError(
                        f'{self.ann_file}: {self.keys["pts_semantic_mask"]}[{objects[of]}] has the part '
                        f'{masks[of, point]}, but its category {category} has {parts}'
                    )

    def read_points(self, info: dict) -> dict:
        """Read the points and parts of a sample."""
        return {key: array[info['index']] for key, array in self.arrays.items()}
