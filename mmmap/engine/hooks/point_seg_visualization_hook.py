"""A hook that draws the predictions of a point segmentor during validation and test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.runner import Runner

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

    It works for parts and scenes. Names and colours of the classes are the ``classes`` and ``palette`` of the data
    set. Pictures go to the visualizer, whose local backend writes PNG files under ``vis_data/vis_image``. PLY files
    go to ``vis_data/points``: the coordinates of the file of the scene, colours by the predicted label, and the
    property ``label``. Both are named by :func:`~mmmap.structures.output_names.output_names`. Errors are logged and do
    not end the run.

    Args:
        draw (bool): Whether to draw. Defaults to False.
        interval (int): Draw the first cloud of every so many batches; with ``out_dir`` all clouds. Defaults to 50.
        out_dir (str, optional): A folder for the PLY files, and for the pictures instead of the visualizer.

    Raises:
        ValueError: If ``interval`` is not positive.
    """

    def __init__(self, draw: bool = False, interval: int = 50, out_dir: str | None = None) -> None:
        if interval < 1:
            raise ValueError(f'interval={interval} must be positive')
        self.draw = draw
        self.interval = interval
        self.out_dir = out_dir
        self._named: Any = None

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Draw clouds of the validation when due."""
        dataset = runner.val_dataloader.dataset
        self.attempt(self._draw_batch, runner, batch_idx, data_batch, outputs, 'val', runner.iter, dataset)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Draw clouds of the test when due."""
        self.attempt(
            self._draw_batch, runner, batch_idx, data_batch, outputs, 'test', 0, runner.test_dataloader.dataset
        )

    def _draw_batch(
        self, runner: Runner, batch_idx: int, batch: dict, outputs: Sequence, mode: str, step: int, dataset: Any
    ) -> None:
        if not self.draw or batch_idx % self.interval:
            return
        # The batch before the data preprocessor has the points as the pipeline made them. With several versions of a
        # cloud, for votes, the first is drawn.
        inputs = batch['inputs']
        if isinstance(inputs[0], (list, tuple)):
            inputs = inputs[0]
        for index, sample in enumerate(outputs if self.out_dir is not None else outputs[:1]):
            points = np.asarray(inputs[index])
            name = f'{mode}_{self._name(dataset, sample.get("lidar_path"), f"{batch_idx}_{index}")}'
            self._draw(runner, points, sample, name, step, dataset)

    def _name(self, dataset: Any, path: str | None, number: str) -> str:
        if path is None:
            return number
        if dataset is not self._named:
            self._named, self._names = dataset, dataset_names(dataset)
        return self._names.get(path) or output_names([path])[path]

    def _draw(
        self, runner: Runner, points: np.ndarray, sample: PointDataSample, name: str, step: int, dataset: Any
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


def _places(points: np.ndarray, sample: PointDataSample, dataset: Any) -> np.ndarray:
    """Coordinates (N, 3) as in the file. The pipeline has moved the origin of a scene to a corner."""
    if any(isinstance(leaf, SceneDataset) for _, leaf in leaf_datasets(dataset, '')):
        xyz = read_scene(sample.lidar_path, colours=False)['xyz']
        if len(xyz) == len(points):
            return xyz
    return points[:, :3]


def _labels(segmentation) -> np.ndarray:
    return torch.as_tensor(segmentation.pts_semantic_mask).cpu().numpy().reshape(-1)
