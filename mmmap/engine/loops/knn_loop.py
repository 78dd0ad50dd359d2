"""A test loop that measures the kNN accuracy of the features of a checkpoint."""

import math
from typing import Any

import numpy as np
from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner, TestLoop
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from mmmap.evaluation import extract_features, knn_scores
from mmmap.registry import LOOPS

from ..class_labels import align_query, dataset_classes
from ..data_loaders import build_loader
from ..runner_parts import unwrapped_model


@LOOPS.register_module()
class KNNLoop(TestLoop):
    """Test loop that classifies the test images by their nearest neighbours in a bank of images.

    Only the features of the model are used, so that it may be a pretraining model. The metric is ``knn/accuracy`` in
    percent. The evaluator gets the predictions, too: ``--out`` writes them and mmpretrain's metrics measure them.
    ``test_evaluator=[]`` means no further metrics. During a training use ``KNNHook``.

    Classes are compared by name: if the test images have fewer classes or another order, their labels are mapped to
    those of the bank. The classes on which the model was trained do not matter.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Labelled images to classify, the ``test_dataloader``.
        evaluator (Evaluator | dict | list): The ``test_evaluator``.
        bank_dataloader (DataLoader | dict): Labelled images that vote.
        k (int): The number of neighbours. Defaults to 20.

    Raises:
        ValueError: If k is not from 1 to the number of bank images.
        UserError: If images have no label or several, or the classes of the two data sets do not fit.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        evaluator: Evaluator | dict | list,
        bank_dataloader: DataLoader | dict,
        k: int = 20,
    ) -> None:
        super().__init__(runner, dataloader, evaluator)
        if isinstance(bank_dataloader, dict):
            bank_dataloader = build_loader(runner, bank_dataloader)
        bank: Any = bank_dataloader.dataset
        query: Any = self.dataloader.dataset
        if not 1 <= k <= len(bank):
            raise ValueError(f'test_cfg.k={k}: must be from 1 to the {len(bank)} images of test_cfg.bank_dataloader')
        for message in align_query(bank, 'test_cfg.bank_dataloader.dataset', query, 'test_dataloader.dataset'):
            runner.logger.info(message)
        self.bank_dataloader = bank_dataloader
        self.classes = dataset_classes(bank, 'test_cfg.bank_dataloader.dataset') or ()
        self.k, self.numbers = k, (len(bank), len(query))

    def run(self) -> dict[str, float]:
        """Run the test; returns ``knn/accuracy`` and the metrics of the evaluator, the same on every process."""
        runner = self.runner
        runner.call_hook('before_test')
        # EMAHook swaps its weights in here.
        runner.call_hook('before_test_epoch')
        model = unwrapped_model(runner)
        runner.logger.info(f'kNN: extracting the features of {self.numbers[0]} bank and {self.numbers[1]} test images')
        bank, query = extract_features(model, self.bank_dataloader), extract_features(model, self.dataloader)
        found: list[Any] = [None, None]
        if bank is not None and query is not None:
            scores = knn_scores(*bank, query[0], k=self.k, device=next(model.parameters()).device)
            # Classes without images in the bank get no votes.
            scores = np.pad(scores, ((0, 0), (0, max(0, len(self.classes) - scores.shape[1]))))
            found = [scores, query[1]]
        # Only the main process has the features.
        broadcast_object_list(found)
        scores, labels = found
        metrics = {'knn/accuracy': 100.0 * float(np.mean(scores.argmax(axis=1) == labels))}
        metrics |= self._evaluate(scores, labels)
        runner.call_hook('after_test_epoch', metrics=metrics)
        runner.call_hook('after_test')
        return metrics

    def _evaluate(self, scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        if not self.evaluator.metrics:
            return {}
        rank, world_size, size = get_rank(), get_world_size(), len(labels)
        # Distributed as by a DefaultSampler: the metrics restore its order and drop its padding.
        for i in range(rank, math.ceil(size / world_size) * world_size, world_size):
            score = scores[i % size]
            sample = DataSample().set_gt_label(int(labels[i % size]))
            self.evaluator.process([sample.set_pred_score(score).set_pred_label(int(score.argmax()))])
        return self.evaluator.evaluate(size)
