"""Few-shot classification: a few classes with a few shapes each, drawn from a data set."""

import numpy as np
from mmengine.dataset import BaseDataset

from mmmap.registry import DATASETS

from .shapes import ShapeDataset


@DATASETS.register_module()
class FewShotFold(ShapeDataset):
    """A fold of a few-shot classification, drawn by its number from a labelled data set.

    ``way`` of the classes are drawn, and of each ``shot`` shapes to train on and ``queries`` others to classify. The
    same numbers give the same fold, on any machine. Labels count from 0 in each fold.

    Args:
        dataset (dict): The data set, without pipeline; its samples have ``gt_label``.
        way (int): Classes of a fold.
        shot (int): Training shapes of each class.
        fold (int): Number of the fold, from 0.
        queries (int): Shapes of each class to classify. Defaults to 20.
        split (str): 'train' or 'test', the queries. Defaults to 'train'.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        ValueError: If there is no such split, a number is not positive, the data set has a pipeline or its samples no
            label, or fewer than ``way`` classes have enough shapes.
    """

    def __init__(
        self, dataset: dict, way: int, shot: int, fold: int, queries: int = 20, split: str = 'train', **kwargs
    ) -> None:
        self._check_option('split', split, ('train', 'test'))
        if min(way, shot, queries) < 1 or fold < 0:
            raise ValueError(f'FewShotFold: way={way}, shot={shot}, queries={queries}, fold={fold} make no sense')
        if dataset.get('pipeline'):
            raise ValueError('FewShotFold: the pipeline is its own, not that of its dataset')
        self.dataset_cfg = dict(dataset)
        self.way, self.shot, self.fold, self.queries = way, shot, fold, queries
        self.split = split
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the fold.

        Returns:
            list[dict]: What the data set lists of each sample, with ``gt_label`` in the fold.
        """
        # Its list must stay readable without the points.
        self.source: BaseDataset = DATASETS.build(dict(self.dataset_cfg, serialize_data=False))
        self.source.full_init()
        infos = self.source.data_list
        if any('gt_label' not in info for info in infos):
            raise ValueError(f'FewShotFold: samples of {self.dataset_cfg["type"]} have no gt_label')
        labels = np.array([info['gt_label'] for info in infos])
        needed = self.shot + self.queries
        large = [label for label in np.unique(labels) if np.count_nonzero(labels == label) >= needed]
        if len(large) < self.way:
            raise ValueError(f'FewShotFold: {len(large)} classes have {needed} shapes, way={self.way} are needed')
        rng = np.random.default_rng([self.way, self.shot, self.fold])
        chosen = sorted(rng.permutation(large)[: self.way].tolist())
        names = self.source.metainfo.get('classes')
        # Of another fold, label 0 is another class.
        self._metainfo['classes'] = tuple(names[label] if names else str(label) for label in chosen)
        samples = []
        for new, label in enumerate(chosen):
            found = rng.permutation(np.flatnonzero(labels == label))[:needed].tolist()
            for index in found[: self.shot] if self.split == 'train' else found[self.shot :]:
                samples.append(infos[index] | dict(gt_label=new))
        return samples

    def read_points(self, info: dict) -> dict:
        """Points of a sample, as its data set has them."""
        return self.source.read_points(info)
