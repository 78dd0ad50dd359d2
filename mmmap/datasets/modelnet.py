"""ModelNet40: the shapes, and the common folds of its few-shot classification."""

from typing import ClassVar

import numpy as np

from mmmap.registry import DATASETS
from mmmap.structures.cloud_files import read_table
from mmmap.structures.scene_files import whole_numbers
from mmmap.utils.safe_load import unpickle

from .shape_dataset import ShapeDataset, read_lines


@DATASETS.register_module()
class ModelNet40(ShapeDataset):
    """ModelNet40 (Wu et al., CVPR 2015): 9,843 + 2,468 shapes of 40 classes, 10,000 points each.

    The layout is that of the release of PointNet++ ("modelnet40_normal_resampled"): ``modelnet40_train.txt``,
    ``modelnet40_test.txt``, and for each shape ``CLASS/CLASS_0001.txt`` with lines ``x,y,z,nx,ny,nz``. The text is
    parsed once, and kept as an array beside it. All shapes must have the same number of points: a text that was cut off
    at the end of a line has fewer.

    Args:
        data_root (str): Folder of the release. Defaults to 'data/modelnet40_normal_resampled'.
        split (str): 'train' or 'test'. Defaults to 'train'.
        normals (bool): Keep the normals as columns 3 to 5. Defaults to False.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If ``split`` is unknown, or a list or a shape is missing or damaged.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            'airplane',
            'bathtub',
            'bed',
            'bench',
            'bookshelf',
            'bottle',
            'bowl',
            'car',
            'chair',
            'cone',
            'cup',
            'curtain',
            'desk',
            'door',
            'dresser',
            'flower_pot',
            'glass_box',
            'guitar',
            'keyboard',
            'lamp',
            'laptop',
            'mantel',
            'monitor',
            'night_stand',
            'person',
            'piano',
            'plant',
            'radio',
            'range_hood',
            'sink',
            'sofa',
            'stairs',
            'stool',
            'table',
            'tent',
            'toilet',
            'tv_stand',
            'vase',
            'wardrobe',
            'xbox',
        )
    )

    def __init__(
        self, data_root: str = 'data/modelnet40_normal_resampled', split: str = 'train', normals: bool = False, **kwargs
    ) -> None:
        self._check_option('split', split, ('train', 'test'))
        self.split = split
        self.normals = normals
        self._counts: dict[str, int] = {}
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List ``lidar_path``, ``gt_label`` and ``has_normals`` of each sample."""
        root = self._root()
        names = read_lines(root / f'modelnet40_{self.split}.txt', 'modelnet40_normal_resampled')
        samples, classes = [], self.metainfo['classes']
        for name in names:
            kind = name.rpartition('_')[0]
            if kind not in classes:
                raise ValueError(f'{root / f"modelnet40_{self.split}.txt"}: {name} is not of a class of ModelNet40')
            path = str(root / kind / f'{name}.txt')
            samples.append(dict(lidar_path=path, gt_label=classes.index(kind), has_normals=self.normals))
        self._first = [sample['lidar_path'] for sample in samples[:2]]
        return samples

    def read_points(self, info: dict) -> dict:
        """Read the points of a sample, (10000, 3) or (10000, 6)."""
        points = read_table(info['lidar_path'], 6, delimiter=',')
        other, count = self._other_count(info['lidar_path'])
        if len(points) != count:
            raise ValueError(
                f'{info["lidar_path"]} has {len(points):,} points, {other} has {count:,}: one of the two is cut off'
            )
        return dict(points=points if self.normals else points[:, :3])

    def _other_count(self, path: str) -> tuple[str, int]:
        """Return the first shape that is not ``path``, and its number of points."""
        other = next((first for first in self._first if first != path), path)
        if other not in self._counts:
            self._counts[other] = len(read_table(other, 6, delimiter=','))
        return other, self._counts[other]


@DATASETS.register_module()
class ModelNetFewShot(ShapeDataset):
    """The common few-shot folds of ModelNet40, as pickles (Sharma and Kaul, NeurIPS 2020).

    ``{way}way_{shot}shot/{fold}.pkl`` is a dict with 'train' and 'test', each a list of (points, label, ...). Labels
    count from 0 in each fold. Only plain data are unpickled. :class:`FewShotFold` makes other folds.

    Args:
        way (int): Classes of a fold: 5 or 10 in the release.
        shot (int): Training shapes of each class: 10 or 20 in the release.
        fold (int): Number of the fold: from 0 to 9 in the release.
        data_root (str): Folder of the folds. Defaults to 'data/ModelNetFewshot'.
        split (str): 'train', or 'test' for the shapes to classify. Defaults to 'train'.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If ``split`` is unknown, or the file is missing or not such a fold.
        UserError: If the file is damaged, or holds more than plain values and arrays.
    """

    def __init__(
        self, way: int, shot: int, fold: int, data_root: str = 'data/ModelNetFewshot', split: str = 'train', **kwargs
    ) -> None:
        self._check_option('split', split, ('train', 'test'))
        self.way, self.shot, self.fold = way, shot, fold
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the fold, and list ``index``, ``lidar_path`` and ``gt_label`` of each sample."""
        path = self._root() / f'{self.way}way_{self.shot}shot' / f'{self.fold}.pkl'
        if not path.is_file():
            raise ValueError(f'{path} is missing')
        content = unpickle(path)
        try:
            shapes = {
                split: [
                    (np.asarray(shape[0]), int(whole_numbers(shape[1], f'{split}[{index}]')))
                    for index, shape in enumerate(content[split])
                ]
                for split in ('train', 'test')
            }
        except (TypeError, KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{path} lacks 'train' and 'test' with (points, label, ...): {error}") from None
        # In some releases the labels are those of ModelNet40.
        labels = sorted({label for split in shapes.values() for _, label in split})
        if len(labels) != self.way or len(shapes['train']) != self.way * self.shot:
            raise ValueError(
                f'{path} has {len(shapes["train"])} training shapes of {len(labels)} classes, not {self.shot} of '
                f'{self.way} each'
            )
        self.clouds = [points for points, _ in shapes[self.split]]
        return [
            dict(index=index, lidar_path=f'{path}:{self.split}[{index}]', gt_label=labels.index(label))
            for index, (_, label) in enumerate(shapes[self.split])
        ]

    def read_points(self, info: dict) -> dict:
        """Return the points of a sample, (N, 3)."""
        return dict(points=self.clouds[info['index']][:, :3])
