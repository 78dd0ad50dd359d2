"""A hook that writes the predicted labels of scenes in the format of a benchmark."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmmap.registry import HOOKS
from mmmap.structures.output_names import dataset_names
from mmmap.structures.ply import write_ply
from mmmap.structures.scene_files import count_points, read_scene
from mmmap.utils.atomic_files import atomic_path

from ...utils.errors import UserError
from ..wrapped_datasets import leaf_datasets


@HOOKS.register_module()
class SceneSubmissionHook(Hook):
    """Write a file for each scene of a test as soon as it is predicted, completely or not at all.

    The labels are those of the data set as released (``raw_labels``), not the indices of its classes. The format is
    the ``submission_format`` of the data set. ``'txt'`` has a label per line in the order of the points and is named
    by the scene, as ScanNet's benchmark asks. ``'ply'`` has the coordinates of the file of the scene and the property
    ``label``, and is named by folder and scene. Each of several processes writes its own scenes.

    Args:
        out_dir (str): The folder for the files.
    """

    def __init__(self, out_dir: str) -> None:
        self.out_dir = Path(out_dir)

    def before_test(self, runner: Runner) -> None:
        """Choose the names of the files.

        Raises:
            UserError: If the data set has no scenes, or two scenes would have the same file.
        """
        dataset = runner.test_dataloader.dataset
        self._names, forms = dataset_names(dataset), []
        for key, scenes in leaf_datasets(dataset, 'test_dataloader.dataset'):
            if not hasattr(scenes, 'submission_format'):
                raise UserError(f'a submission is of scenes: {type(scenes).__name__} is no SceneDataset')
            labels = scenes.raw_labels
            forms.append((scenes.submission_format, None if labels is None else tuple(labels)))
            if forms[-1] != forms[0]:
                raise UserError(
                    f'{key} has another format of submission than the first part of the test set, {forms[-1]} and not '
                    f'{forms[0]}: test one at a time'
                )
        self._format, labels = forms[0]
        self._labels = None if labels is None else np.asarray(labels)
        if self._format == 'txt':
            self._names = {path: Path(path).stem for path in self._names}
            name, count = Counter(self._names.values()).most_common(1)[0]
            if count > 1:
                paths = [path for path in self._names if self._names[path] == name]
                raise UserError(f'two scenes would have the file {name}.txt: {paths[0]} and {paths[1]}')
        self.out_dir.mkdir(parents=True, exist_ok=True)
        written = {f'{name}.{self._format}' for name in self._names.values()}
        if others := sorted({path.name for path in self.out_dir.glob(f'*.{self._format}')} - written):
            print_log(
                f'{self.out_dir} has {len(others):,} files of other scenes ({others[0]} first), which are kept',
                'current',
                logging.WARNING,
            )

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: Sequence | None = None
    ) -> None:
        """Write the scenes of a batch.

        Raises:
            ValueError: If a scene was not predicted point by point.
        """
        for sample in outputs or ():
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
        # If the scenes do not divide evenly, two processes have the same one.
        if self._format == 'txt':
            with atomic_path(target) as part:
                part.write_text('\n'.join(map(str, labels.tolist())) + '\n')
        else:
            kinds = (np.uint8, np.int32)
            fits = (k for k in kinds if np.iinfo(k).min <= labels.min() and labels.max() <= np.iinfo(k).max)
            labels = labels.astype(next(fits, np.float64))
            write_ply(target, read_scene(path, colours=False)['xyz'], label=labels)

    def after_test(self, runner: Runner) -> None:
        """Log where the files are."""
        print_log(f'wrote the labels of {len(self._names):,} scenes to {self.out_dir}', 'current')
