"""Shows during validation and test what a segmentor of points predicts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmmap.datasets.scenes import SceneDataset
from mmmap.registry import HOOKS
from mmmap.structures import PointDataSample
from mmmap.structures.output_names import dataset_names, output_names
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import read_scene
from mmmap.visualization import draw_segmentation, label_colours, make_palette

from ..wrapped_datasets import leaf_datasets
from .side_product_hook import SideProductHook


@HOOKS.register_module()
class PointSegVisualizationHook(SideProductHook):
    """Draw clouds with their true and predicted labels, and write the predictions as PLY files.

    For parts and scenes alike; names and colours of the classes are the data set's ``classes`` and ``palette``.
    Pictures go to the visualizer, whose local backend writes PNG files under ``vis_data/vis_image``; PLY files, with
    the coordinates of a scene's file, colours by the predicted label and the property ``label``, go to
    ``vis_data/points``. Both are named by :func:`~mmmap.structures.output_names.output_names`. What goes wrong in them
    is logged and ends nothing.

    Args:
        draw (bool): Whether it does anything. Defaults to False.
        interval (int): Every so many batches one cloud, the first; with ``out_dir`` all clouds. Defaults to 50.
        out_dir (str, optional): Where the PLY files and, in place of the visualizer's folder, the pictures go.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    def __init__(
        self,
        draw: bool = False,
        interval: int = 50,
        out_dir: str | None = None,
    ) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval} must be positive')
        self.draw = draw
        self.interval = interval
        self.out_dir = out_dir
        self._named = None

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Draw clouds of the validation when due."""
        dataloader = runner.val_dataloader
        self.attempt(self._draw_batch, runner, batch_idx, data_batch, outputs, 'val', runner.iter, dataloader)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Draw clouds of the test when due."""
        self.attempt(self._draw_batch, runner, batch_idx, data_batch, outputs, 'test', 0, runner.test_dataloader)

    def _draw_batch(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None,
        outputs: Sequence | None,
        mode: str,
        step: int,
        dataloader: torch.utils.data.DataLoader,
    ) -> None:
        if not self.draw or batch_idx % self.interval:
            return
        # The batch before the data preprocessor: the points as the pipeline made them. Of several versions, for votes,
        # the first.
        inputs = data_batch['inputs']
        if isinstance(inputs[0], (list, tuple)):
            inputs = inputs[0]
        for index, sample in enumerate(outputs if self.out_dir is not None else outputs[:1]):
            points = np.asarray(inputs[index])
            name = f'{mode}_{self._name(dataloader.dataset, sample.get("lidar_path"), f"{batch_idx}_{index}")}'
            self._draw(runner, points, sample, name, step, dataloader.dataset)

    def _name(self, dataset: torch.utils.data.Dataset, path: str | None, number: str) -> str:
        if path is None:
            return number
        if dataset is not self._named:
            self._named, self._names = dataset, dataset_names(dataset)
        return self._names.get(path) or output_names([path])[path]

    def _draw(
        self, runner: Runner, points: np.ndarray, sample: PointDataSample, name: str, step: int, dataset: Dataset
    ) -> None:
        meta = dataset.metainfo
        prediction = _labels(sample.pred_pts_seg)
        truth = _labels(sample.gt_pts_seg) if 'gt_pts_seg' in sample else None
        classes = meta.get('classes')
        palette = meta.get('palette')
        if palette is None:
            palette = make_palette(len(classes) if classes else int(prediction.max()) + 1)
        picture = draw_segmentation(points[:, :3], prediction, truth, None, classes, palette)
        if self.out_dir is None:
            folder = Path(runner.log_dir) / 'vis_data' / 'points'
            runner.visualizer.add_image(name, picture, step=step)
        else:
            from PIL import Image

            folder = Path(self.out_dir)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / f'{name}_{step}.png')
        labels = prediction.astype(np.uint8)
        write_ply(
            folder / f'{name}_{step}.ply',
            _places(points, sample, dataset),
            label_colours(prediction, palette),
            label=labels,
        )


def _places(points: np.ndarray, sample: PointDataSample, dataset: Dataset) -> np.ndarray:
    """Coordinates (N, 3) as in the file of a scene, which the model sees from a corner; other clouds as they are."""
    if any(isinstance(leaf, SceneDataset) for _, leaf in leaf_datasets(dataset, '')):
        xyz = read_scene(sample.lidar_path, colours=False)['xyz']
        if len(xyz) == len(points):
            return xyz
    return points[:, :3]


def _labels(segmentation) -> np.ndarray:
    return torch.as_tensor(segmentation.pts_semantic_mask).cpu().numpy().reshape(-1)
