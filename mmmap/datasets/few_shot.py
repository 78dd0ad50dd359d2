"""Few-shot classification: a few classes with a few shapes each, drawn from a data set."""

import numpy as np
from mmengine.dataset import BaseDataset

from mmmap.registry import DATASETS

from .shape_dataset import ShapeDataset


@DATASETS.register_module()
class FewShotFold(ShapeDataset):
    """A fold for few-shot classification, drawn from a labelled data set.

    ``way`` classes are drawn. Of each class, ``shot`` shapes are drawn for training and ``queries`` others for testing.
    The same numbers give the same fold on any machine. Labels count from 0 in each fold.

    Args:
        dataset (dict): The data set, without pipeline. Its samples have ``gt_label``.
        way (int): Classes of a fold.
        shot (int): Training shapes of each class.
        fold (int): Number of the fold, from 0.
        queries (int): Shapes of each class to classify. Defaults to 20.
        split (str): 'train', or 'test' for the queries. Defaults to 'train'.
        **kwargs: The other arguments of mmengine's ``BaseDataset``, such as ``pipeline``.

    Raises:
        ValueError: If ``split`` is unknown, a number is out of range, the data set has a pipeline or no labels, or too
            few classes have enough shapes.
    """

    def __init__(
        self, dataset: dict, way: int, shot: int, fold: int, queries: int = 20, split: str = 'train', **kwargs
    ) -> None:
        self._check_option('split', split, ('train', 'test'))
        if min(way, shot, queries) < 1 or fold < 0:
            raise ValueError(
                f'FewShotFold: way={way}, shot={shot}, queries={queries} must be positive, fold={fold} not negative'
            )
        if dataset.get('pipeline'):
            raise ValueError('FewShotFold: set the pipeline of FewShotFold, not that of its dataset')
        self.dataset_cfg = dict(dataset)
        self.way, self.shot, self.fold, self.queries = way, shot, fold, queries
        self.split = split
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict]:
        """Draw the fold, and list the entries of its samples in the data set, with ``gt_label`` in the fold."""
        # The list of samples must be readable without their points.
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
        # Label 0 is a different class in each fold.
        self._metainfo['classes'] = tuple(names[label] if names else str(label) for label in chosen)
        samples = []
        for new, label in enumerate(chosen):
            found = rng.permutation(np.flatnonzero(labels == label))[:needed].tolist()
            for index in found[: self.shot] if self.split == 'train' else found[self.shot :]:
                samples.append(infos[index] | dict(gt_label=new))
        return samples

    def read_points(self, info: dict) -> dict:
        """Read the points of a sample, as its data set does."""
        return self.source.read_points(info)
