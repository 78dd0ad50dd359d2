"""Writes the predicted labels of scenes in the form that a benchmark takes."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmmap.registry import HOOKS
from mmmap.structures.output_names import dataset_names
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import count_points, read_scene

from ..atomic_files import replace
from ..errors import UserError


@HOOKS.register_module()
class SceneSubmissionHook(Hook):
    """Write a file of each scene of a test, as soon as it is predicted, whole or not at all.

    The labels are those of the data set as released (``raw_labels``), not the indices of its classes. The data set's
    ``submission_format`` says what is written: ``'txt'``, a label a line in the order of the points, named after the
    scene alone, as ScanNet's benchmark wants it; ``'ply'``, the coordinates as in the file of the scene and the
    property ``label``, named by folder and scene. Of several processes each writes its share.

    Args:
        out_dir (str): Where the files go.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)

    def before_test(self, runner: Runner) -> None:
        """Name the files, before anything is computed.

        Raises:
            UserError: If the data set is none of scenes, or two scenes would have one file.
        """
        dataset = runner.test_dataloader.dataset
        self._names, scenes = dataset_names(dataset), _unwrap(dataset)
        self._format = getattr(scenes, 'submission_format', None)
        if self._format is None:
            raise UserError(f'a submission is of scenes: {type(scenes).__name__} is no SceneDataset')
        labels = scenes.raw_labels
        self._labels = None if labels is None else np.asarray(labels)
        if self._format == 'txt':
            self._names = {path: Path(path).stem for path in self._names}
            name, count = Counter(self._names.values()).most_common(1)[0]
            if count > 1:
                paths = [path for path in self._names if self._names[path] == name]
                raise UserError(f'two scenes would have the file {name}.txt: {paths[0]} and {paths[1]}')
        self.out_dir.mkdir(parents=True, exist_ok=True)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Write the scenes of a batch.

        Raises:
            ValueError: If a scene was not predicted point by point.
        """
        for sample in outputs:
            path = sample.lidar_path
            labels = torch.as_tensor(sample.pred_pts_seg.pts_semantic_mask).cpu().numpy().reshape(-1)
            if len(labels) != count_points(path):
                raise ValueError(
                    f'{path} has {count_points(path):,} points, {len(labels):,} were predicted: its pipeline must keep '
                    'all of them'
                )
            if self._labels is not None:
                labels = self._labels[labels]
            self._write(self.out_dir / f'{self._names[path]}.{self._format}', path, labels)

    def _write(self, target: Path, path: str, labels: np.ndarray) -> None:
        # Where scenes do not divide evenly, two processes have the same one.
        part = target.with_name(f'{target.name}.{os.getpid()}.tmp')
        if self._format == 'txt':
            part.write_text('\n'.join(map(str, labels.tolist())) + '\n')
        else:
            labels = labels.astype(np.uint8 if labels.min() >= 0 and labels.max() < 256 else np.int32)
            write_ply(part, read_scene(path, colours=False)['xyz'], label=labels)
        replace(part, target)

    def after_test(self, runner: Runner) -> None:
        """Tell where the files are."""
        print_log(f'wrote the labels of {len(self._names):,} scenes to {self.out_dir}', 'current')


def _unwrap(dataset: Any) -> Any:
    """The first data set in wrappers."""
    while not hasattr(dataset, 'submission_format'):
        if hasattr(dataset, 'dataset'):
            dataset = dataset.dataset
        elif getattr(dataset, 'datasets', None):
            dataset = dataset.datasets[0]
        else:
            break
    return dataset
