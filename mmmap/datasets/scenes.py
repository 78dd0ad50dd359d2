"""Data sets of scenes for semantic segmentation of points: custom scenes, S3DIS and ScanNet v2."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmengine.dataset import BaseDataset

from mmmap.registry import DATASETS
from mmmap.structures.scene_files import IGNORED, count_points


@DATASETS.register_module()
class SceneDataset(BaseDataset):
    """Scenes of points. Each scene is a file with ``xyz`` (N, 3), ``label`` (N,) and features such as ``rgb`` (N, 3).

    :func:`~mmmap.structures.scene_files.read_scene` reads ``.npz`` files with these arrays, and formats such as PLY and
    LAS. A sample is a scene: ``lidar_path``, ``class_labels``, ``unknown_labels`` and ``sample_idx``, for
    :class:`LoadScene`. For training, ``crops`` repeats the scenes in proportion to their points, because each sample is
    cropped to a small part of its scene.

    Args:
        data_root (str): Folder of the scenes. Defaults to ''.
        pattern (str | Sequence[str]): Patterns of the files in the folder, such as 'train_*.npz' or 'Area_1/*.npz'. A
            file that matches several patterns counts once. Hidden files are ignored. Defaults to '*.npz'.
        class_labels (Sequence[int], optional): The label of each class in the files. By default labels are class
            indices, with 255 for ignored points.
        unknown_labels (str, optional): For points with other labels: 'ignore' leaves them out of training and
            evaluation, 'error' raises an error. By default 'ignore' with ``class_labels``, else 'error'.
        crops (int, optional): Approximate number of samples in an epoch. Every scene occurs at least once. By default
            every scene occurs once.
        **kwargs: The other arguments of mmengine's ``BaseDataset``: ``metainfo`` with ``classes`` and ``palette``,
            ``pipeline``, ``test_mode`` and more.

    Raises:
        FileNotFoundError: If no file matches a pattern.
        ValueError: If there are not as many ``class_labels`` as classes, or a file is damaged.
    """

    #: Format of submitted labels, see :class:`SceneSubmissionHook`.
    submission_format: ClassVar[str] = 'ply'

    @property
    def raw_labels(self) -> Sequence[int] | None:
        """The label of each class in the original data set; None for class indices."""
        return self.class_labels

    def __init__(
        self,
        data_root: str = '',
        pattern: str | Sequence[str] = '*.npz',
        class_labels: Sequence[int] | None = None,
        unknown_labels: str | None = None,
        crops: int | None = None,
        **kwargs,
    ) -> None:
        self.patterns = [pattern] if isinstance(pattern, str) else list(pattern)
        self.class_labels = class_labels
        self.unknown_labels = unknown_labels or ('error' if class_labels is None else 'ignore')
        self.crops = crops
        super().__init__(data_root=data_root, **kwargs)
        classes, labels, name = self.metainfo.get('classes', ()), class_labels, type(self).__name__
        if self.unknown_labels not in ('ignore', 'error'):
            raise ValueError(f"{name}: unknown_labels={self.unknown_labels!r} must be 'ignore' or 'error'")
        if len(classes) > IGNORED:
            raise ValueError(f'{name}: {len(classes)} classes, but at most {IGNORED} are possible')
        if labels is not None and len(labels) != len(classes):
            raise ValueError(f'{name}: {len(labels)} class_labels for {len(classes)} classes: give as many in metainfo')
        if labels is not None and len(set(labels)) < len(labels):
            raise ValueError(f'{name}: class_labels={tuple(labels)} has a label twice')

    def load_data_list(self) -> list[dict]:
        """List ``lidar_path``, ``class_labels`` and ``unknown_labels`` of each sample."""
        root = Path(self.data_root)
        paths: dict[Path, None] = {}
        for pattern in self.patterns:
            # macOS writes hidden files ._NAME beside NAME.
            if not (found := sorted(path for path in root.glob(pattern) if not path.name.startswith('.'))):
                raise FileNotFoundError(f'no scene {pattern} in {root.absolute()}')
            paths |= dict.fromkeys(found)
        repeats = [1] * len(paths)
        if self.crops is not None:
            points = np.array([count_points(path) for path in paths], np.float64)
            repeats = np.maximum(1, np.round(self.crops * points / points.sum()).astype(int))
        return [self.describe(path) for path, times in zip(paths, repeats, strict=True) for _ in range(times)]

    def describe(self, path: str | Path) -> dict:
        """Describe a file for the pipeline: its path and the rules for its labels. It may be outside the data set."""
        labels = self.class_labels
        if labels is None and 'classes' in self.metainfo:
            labels = range(len(self.metainfo['classes']))
        return dict(lidar_path=str(path), class_labels=labels, unknown_labels=self.unknown_labels)


@DATASETS.register_module()
class S3DISScenes(SceneDataset):
    """S3DIS (Armeni et al., CVPR 2016): 272 rooms of six areas, 13 classes.

    ``tools/dataset_converters/s3dis.py`` writes the files. One area is the test set, and the other five are the
    training set. It is common to test on area 5, or on each area in turn and to sum the counts ("6-fold").

    Args:
        data_root (str): Folder of the areas. Defaults to 'data/s3dis'.
        test_area (int): The test area, from 1 to 6. Defaults to 5.
        test_mode (bool): Whether this is the test set. Defaults to False.
        **kwargs: The other arguments of :class:`SceneDataset`.

    Raises:
        ValueError: If ``test_area`` is not from 1 to 6.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            'ceiling',
            'floor',
            'wall',
            'beam',
            'column',
            'window',
            'door',
            'table',
            'chair',
            'sofa',
            'bookcase',
            'board',
            'clutter',
        ),
        palette=[
            [0, 255, 0],
            [0, 0, 255],
            [0, 255, 255],
            [255, 255, 0],
            [255, 0, 255],
            [100, 100, 255],
            [200, 200, 100],
            [170, 120, 200],
            [255, 0, 0],
            [200, 100, 100],
            [10, 200, 100],
            [200, 200, 200],
            [50, 50, 50],
        ],
    )

    def __init__(self, data_root: str = 'data/s3dis', test_area: int = 5, test_mode: bool = False, **kwargs) -> None:
        if test_area not in range(1, 7):
            raise ValueError(f'S3DIS has the areas 1 to 6, got test_area={test_area}')
        areas = [area for area in range(1, 7) if (area == test_area) == test_mode]
        pattern = [f'Area_{area}/*.npz' for area in areas]
        super().__init__(data_root=data_root, pattern=pattern, test_mode=test_mode, **kwargs)


@DATASETS.register_module()
class ScanNetScenes(SceneDataset):
    """ScanNet v2 (Dai et al., CVPR 2017): 1,201 + 312 + 100 scans, the 20 classes of its benchmark.

    ``tools/dataset_converters/scannet.py`` writes the files. The 100 test scans have no labels.

    Args:
        data_root (str): Folder of the splits. Defaults to 'data/scannet'.
        split (str): 'train', 'val' or 'test'. Defaults to 'train'.
        **kwargs: The other arguments of :class:`SceneDataset`.

    Raises:
        ValueError: If ``split`` is unknown.
    """

    #: NYU40 class of each class of the benchmark.
    NYU40_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
    METAINFO: ClassVar[dict] = dict(
        classes=(
            'wall',
            'floor',
            'cabinet',
            'bed',
            'chair',
            'sofa',
            'table',
            'door',
            'window',
            'bookshelf',
            'picture',
            'counter',
            'desk',
            'curtain',
            'refrigerator',
            'shower curtain',
            'toilet',
            'sink',
            'bathtub',
            'otherfurniture',
        ),
        palette=[
            [174, 199, 232],
            [152, 223, 138],
            [31, 119, 180],
            [255, 187, 120],
            [188, 189, 34],
            [140, 86, 75],
            [255, 152, 150],
            [214, 39, 40],
            [197, 176, 213],
            [148, 103, 189],
            [196, 156, 148],
            [23, 190, 207],
            [247, 182, 210],
            [219, 219, 141],
            [255, 127, 14],
            [158, 218, 229],
            [44, 160, 44],
            [112, 128, 144],
            [227, 119, 194],
            [82, 84, 163],
        ],
    )

    submission_format = 'txt'
    raw_labels = NYU40_IDS

    def __init__(self, data_root: str = 'data/scannet', split: str = 'train', **kwargs) -> None:
        if split not in ('train', 'val', 'test'):
            raise ValueError(f"ScanNet has the splits 'train', 'val' and 'test', got {split!r}")
        super().__init__(data_root=data_root, pattern=f'{split}/*.npz', **kwargs)
