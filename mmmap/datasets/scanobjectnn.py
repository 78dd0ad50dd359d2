"""ScanObjectNN: objects cut out of scans."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from mmmap.registry import DATASETS
from mmmap.structures.scene_files import check_classes

from .shape_dataset import ShapeDataset


def read_h5(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read clouds ``data`` (S, N, 3) and labels ``label`` (S,) from an HDF5 file, as stored.

    Raises:
        ImportError: If h5py is missing.
        ValueError: If the file is missing or damaged, or its arrays do not match.
    """
    try:
        import h5py
    except ImportError:
        raise ImportError(f'{path} is an HDF5 file and needs h5py: pip install h5py') from None
    if not Path(path).is_file():
        raise ValueError(f'{path} is missing')
    try:
        with h5py.File(path, 'r') as file:
            points, labels = np.asarray(file['data']), np.asarray(file['label'])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f'{path} is cut off or has no clouds and labels ({error})') from None
    if points.ndim != 3 or points.shape[2] != 3 or labels.reshape(-1).shape != (len(points),):
        raise ValueError(f'{path}: data has the shape {points.shape}, label {labels.shape}')
    return points, labels.reshape(-1)


@DATASETS.register_module()
class ScanObjectNN(ShapeDataset):
    """ScanObjectNN (Uy et al., ICCV 2019): objects cut out of scans, 15 classes, 2,048 points each.

    It reads the HDF5 files of the release in ``main_split`` and ``main_split_nobg``.

    Args:
        data_root (str): Folder of the release. Defaults to 'data/ScanObjectNN'.
        variant (str): 'obj_bg', objects with background (2,309 + 581); 'obj_only', without (2,309 + 581); 'pb_t50_rs',
            shifted, rotated and scaled, the hardest one (11,416 + 2,882). Defaults to 'pb_t50_rs'.
        split (str): 'train' or 'test'. Defaults to 'train'.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        FileNotFoundError: If the folder is missing.
        ImportError: If h5py is missing.
        ValueError: If ``variant`` or ``split`` is unknown, or the file is missing or damaged.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=(
            'bag',
            'bin',
            'box',
            'cabinet',
            'chair',
            'desk',
            'display',
            'door',
            'shelf',
            'table',
            'bed',
            'pillow',
            'sink',
            'sofa',
            'toilet',
        )
    )
    #: Folder of each variant, and suffix of its file names.
    VARIANTS: ClassVar[dict[str, tuple[str, str]]] = {
        'obj_bg': ('main_split', ''),
        'obj_only': ('main_split_nobg', ''),
        'pb_t50_rs': ('main_split', '_augmentedrot_scale75'),
    }

    def __init__(
        self, data_root: str = 'data/ScanObjectNN', variant: str = 'pb_t50_rs', split: str = 'train', **kwargs
    ) -> None:
        self._check_option('variant', variant, tuple(self.VARIANTS))
        self._check_option('split', split, ('train', 'test'))
        self.variant = variant
        self.split = split
        super().__init__(data_root=data_root, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Read the file, and list ``index``, ``lidar_path`` and ``gt_label`` of each sample."""
        folder, end = self.VARIANTS[self.variant]
        start = 'training' if self.split == 'train' else 'test'
        path = self._root() / folder / f'{start}_objectdataset{end}.h5'
        self.clouds, labels = read_h5(path)
        labels = check_classes(labels, len(self.metainfo['classes']), f'{path}: label')
        return [
            dict(index=index, lidar_path=f'{path}[{index}]', gt_label=label)
            for index, label in enumerate(labels.tolist())
        ]

    def read_points(self, info: dict) -> dict:
        """Return the points of a sample, (2048, 3)."""
        return dict(points=self.clouds[info['index']])
