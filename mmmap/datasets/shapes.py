"""Clouds of shapes: the base of their data sets, and any that are arrays in one file."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.dataset import BaseDataset

from mmmap.registry import DATASETS
from mmmap.structures.point_checks import check_cloud, to_floats
from mmmap.structures.scene_files import IGNORED, check_classes, whole_numbers


class ShapeDataset(BaseDataset):
    """Base of the data sets of shapes: what a sample is, is listed; its points are read when they are asked for."""

    def read_points(self, info: dict) -> dict:
        """Read what has a row a point.

        Args:
            info (dict): What ``load_data_list`` lists of the sample.

        Returns:
            dict: ``points`` (N, 3 + F) and, for parts, ``pts_semantic_mask`` (N,), as they are stored.
        """
        raise NotImplementedError

    def get_data_info(self, idx: int) -> dict:
        """A sample before its pipeline.

        Args:
            idx (int): Its index.

        Returns:
            dict: What is listed of it, ``sample_idx``, and its points, in float32, or float64 where float32 would move
            them; labels in int64.

        Raises:
            ValueError: If it has no points, one that is not finite, or a label that is no whole number; one line that
                names it.
        """
        info = super().get_data_info(idx)
        info |= self.read_points(info)
        check_cloud(info['points'], info['lidar_path'])
        info['points'] = to_floats(info['points'])
        if 'pts_semantic_mask' in info:
            info['pts_semantic_mask'] = whole_numbers(info['pts_semantic_mask'], info['lidar_path'])
        return info

    def _root(self) -> Path:
        """The folder of the data, which is there."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise FileNotFoundError(f'{type(self).__name__}: folder not found: {root.absolute()}')
        return root

    def _check_option(self, name: str, value: str, known: Sequence[str]) -> None:
        if value not in known:
            raise ValueError(f'{type(self).__name__}: {name}={value!r} must be one of {tuple(known)}')


def read_lines(path: Path, layout: str) -> list[str]:
    """Lines of a list of a release, without empty ones.

    Args:
        path (Path): The list.
        layout (str): Whose layout has it.

    Raises:
        ValueError: If it is missing or empty.
    """
    if not path.is_file():
        raise ValueError(f'{path} is missing, which the layout of {layout} has')
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise ValueError(f'{path} is empty')
    return lines


def consecutive_parts(counts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The parts of each category, counted over all of them.

    Args:
        counts (Sequence[int]): Number of parts of each category.
    """
    ends = np.cumsum(counts).tolist()
    return tuple(tuple(range(end - count, end)) for count, end in zip(counts, ends, strict=True))


@DATASETS.register_module()
class PointCloudArrays(ShapeDataset):
    """Clouds of equal size in one ``.npz`` file, such as a few hundred shapes.

    Args:
        ann_file (str): The file.
        keys (dict[str, str]): Names of the arrays in it: of ``points`` (S, N, 3 + F), and where there are any of
            ``gt_label`` (S,), ``category`` (S,) and ``pts_semantic_mask`` (S, N), parts counted over all categories.
        classes (str, optional): Name of the array with the names of the classes. Defaults to None.
        categories (str, optional): Name of the array with the names of the categories. Defaults to None.
        parts_per_category (str, optional): Name of the array with the number of parts of each category; together they
            are ``category_parts`` of the meta information, and the classes. Defaults to None.
        data_root (str): Folder of the file. Defaults to ''.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is damaged, has no such array, or arrays do not fit each other.
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
            raise ValueError(f'PointCloudArrays: keys has {min(unknown)!r}, it may have {self.KEYS}')
        if 'points' not in keys:
            raise ValueError("PointCloudArrays: keys does not name the array of 'points'")
        self.keys = dict(keys)
        self.names = dict(classes=classes, categories=categories, parts_per_category=parts_per_category)
        super().__init__(ann_file, data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the file and list its samples.

        Returns:
            list[dict]: ``index``, ``lidar_path`` and the labels of each.
        """
        wanted = {**self.keys, **{key: name for key, name in self.names.items() if name is not None}}
        arrays = self._read(wanted)
        count = len(arrays['points'])
        for key, name in self.keys.items():
            expected = arrays['points'].shape[:2] if key == 'pts_semantic_mask' else (count,)
            if key != 'points' and arrays[key].shape != expected:
                raise ValueError(f'{self.ann_file}: {name} has the shape {arrays[key].shape}, not {expected}')
        self._describe(arrays)
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
        # A damaged archive fails in a dozen ways, within zipfile, zlib and numpy.
        except Exception as error:
            raise ValueError(f'{self.ann_file} is damaged or another file: {error}') from None
        if arrays['points'].ndim != 3 or arrays['points'].shape[2] < 3:
            raise ValueError(f'{self.ann_file}: points have the shape {arrays["points"].shape}, not (S, N, 3 + F)')
        if not len(arrays['points']):
            raise ValueError(f'{self.ann_file}: {wanted["points"]} has no clouds')
        return arrays

    def _describe(self, arrays: dict[str, np.ndarray]) -> None:
        """Put what the arrays tell of classes into the meta information, and check the labels by it."""
        meta = {key: tuple(map(str, arrays[key])) for key in ('classes', 'categories') if key in arrays}
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
                # Those of the points stay as small as they are stored.
                arrays[key] = arrays[key] if key == 'pts_semantic_mask' else labels
        if {'category', 'pts_semantic_mask'} <= arrays.keys():
            for category, parts in enumerate(meta.get('category_parts', ())):
                objects = np.flatnonzero(arrays['category'] == category)
                masks = arrays['pts_semantic_mask'][objects]
                if (wrong := ~np.isin(masks, (*parts, IGNORED))).any():
                    of, point = np.argwhere(wrong)[0]
                    raise ValueError(
                        f'{self.ann_file}: {self.keys["pts_semantic_mask"]}[{objects[of]}] has the part '
                        f'{masks[of, point]}, its category {category} has {parts}'
                    )

    def read_points(self, info: dict) -> dict:
        """Points and parts of a sample."""
        return {key: array[info['index']] for key, array in self.arrays.items()}
