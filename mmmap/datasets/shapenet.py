"""ShapeNet: shapes for pretraining, and shapes for part segmentation."""

import json
from pathlib import Path
from typing import ClassVar

from mmmap.registry import DATASETS
from mmmap.structures.cloud_files import read_array, read_table
from mmmap.structures.scene_files import whole_numbers

from .shape_dataset import ShapeDataset, consecutive_parts, read_lines


@DATASETS.register_module()
class ShapeNet55(ShapeDataset):
    """ShapeNet-55 (Yu et al., ICCV 2021): 41,952 + 10,518 shapes of 55 categories, 8,192 points each, for pretraining.

    The layout is that of the release of PoinTr and Point-BERT: ``ShapeNet-55/train.txt``, ``ShapeNet-55/test.txt`` and
    ``shapenet_pc/SYNSET-MODEL.npy``.

    Args:
        data_root (str): Folder of the release. Defaults to 'data/ShapeNet55-34'.
        split (str): 'train', 'test' or 'all', both together, which is common for pretraining. Defaults to 'train'.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If ``split`` is unknown, or a list or a shape is missing or damaged.
    """

    def __init__(self, data_root: str = 'data/ShapeNet55-34', split: str = 'train', **kwargs) -> None:
        self._check_option('split', split, ('train', 'test', 'all'))
        self.splits = ('train', 'test') if split == 'all' else (split,)
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List ``lidar_path`` of each sample."""
        root = self._root()
        names = [name for split in self.splits for name in read_lines(root / f'ShapeNet-55/{split}.txt', 'ShapeNet-55')]
        return [dict(lidar_path=str(root / 'shapenet_pc' / name)) for name in names]

    def read_points(self, info: dict) -> dict:
        """Read the points of a sample, (8192, 3)."""
        points = read_array(info['lidar_path'])
        if points.ndim != 2:
            raise ValueError(f'{info["lidar_path"]} has the shape {points.shape}, not (N, 3)')
        return dict(points=points[:, :3])


@DATASETS.register_module()
class ShapeNetPart(ShapeDataset):
    """ShapeNetPart (Yi et al., SIGGRAPH Asia 2016): 12,137 + 1,870 + 2,874 shapes, 16 categories with 50 parts.

    The layout is that of the release of PointNet++ ("shapenetcore_partanno_segmentation_benchmark_v0_normal"):
    ``synsetoffset2category.txt``, ``train_test_split/shuffled_SPLIT_file_list.json``, and for each shape
    ``SYNSET/MODEL.txt`` with lines ``x y z nx ny nz part``. The text is parsed once, and kept as an array beside it.
    Shapes have different numbers of points.

    Args:
        data_root (str): Folder of the release.
            Defaults to 'data/shapenetcore_partanno_segmentation_benchmark_v0_normal'.
        split (str): 'train', 'val', 'trainval' (common for training) or 'test'. Defaults to 'trainval'.
        normals (bool): Keep the normals as columns 3 to 5. Defaults to False.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the folder is missing.
        ValueError: If ``split`` is unknown, or a list or a shape is missing or damaged.
    """

    #: Number of parts of each category. The parts of all categories are numbered in this order.
    PARTS: ClassVar[dict[str, int]] = dict(
        Airplane=4,
        Bag=2,
        Cap=2,
        Car=4,
        Chair=4,
        Earphone=3,
        Guitar=3,
        Knife=2,
        Lamp=4,
        Laptop=2,
        Motorbike=6,
        Mug=2,
        Pistol=3,
        Rocket=3,
        Skateboard=3,
        Table=3,
    )
    METAINFO: ClassVar[dict] = dict(
        categories=tuple(PARTS),
        classes=tuple(f'{name} {part}' for name, count in PARTS.items() for part in range(count)),
        category_parts=consecutive_parts([*PARTS.values()]),
    )

    def __init__(
        self,
        data_root: str = 'data/shapenetcore_partanno_segmentation_benchmark_v0_normal',
        split: str = 'trainval',
        normals: bool = False,
        **kwargs,
    ) -> None:
        self._check_option('split', split, ('train', 'val', 'trainval', 'test'))
        self.splits = ('train', 'val') if split == 'trainval' else (split,)
        self.normals = normals
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List ``lidar_path``, ``category`` and ``has_normals`` of each sample."""
        root = self._root()
        categories = self._categories(root / 'synsetoffset2category.txt')
        samples = []
        for split in self.splits:
            path = root / f'train_test_split/shuffled_{split}_file_list.json'
            try:
                names = json.loads('\n'.join(read_lines(path, 'ShapeNetPart')))
                # shape_data/SYNSET/MODEL
                pairs = [Path(name).parts[-2:] for name in names]
                samples += [
                    dict(
                        lidar_path=str(root / synset / f'{model}.txt'),
                        category=categories[synset],
                        has_normals=self.normals,
                    )
                    for synset, model in pairs
                ]
            except json.JSONDecodeError as error:
                raise ValueError(f'{path} is cut off or not a list ({error})') from None
            except KeyError as error:
                raise ValueError(f'{path} has shapes of the unknown category {error}') from None
        return samples

    def _categories(self, path: Path) -> dict[str, int]:
        """Map each folder to the index of its category."""
        known, found = self.metainfo['categories'], {}
        for line in read_lines(path, 'ShapeNetPart'):
            name, _, synset = line.partition('\t') if '\t' in line else line.partition(' ')
            if name not in known:
                raise ValueError(f'{path}: {name!r} is not a category of ShapeNetPart')
            found[synset.strip()] = known.index(name)
        return found

    def read_points(self, info: dict) -> dict:
        """Read the points (N, 3) or (N, 6) and the parts (N,) of a sample."""
        table = read_table(info['lidar_path'], 7)
        labels = whole_numbers(table[:, 6], info['lidar_path'])
        parts = self.metainfo['category_parts'][info['category']]
        if not (labels.min() >= parts[0] and labels.max() <= parts[-1]):
            raise ValueError(f'{info["lidar_path"]} has parts from {labels.min()} to {labels.max()}, not of {parts}')
        return dict(points=table[:, : 6 if self.normals else 3], pts_semantic_mask=labels)
