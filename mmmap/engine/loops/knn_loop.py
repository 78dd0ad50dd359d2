"""Tests a checkpoint by how well its features tell classes apart."""

import math

import numpy as np
from mmengine.dist import broadcast_object_list, get_rank, get_world_size
from mmengine.evaluator import Evaluator
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, TestLoop
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader

from mmmap.evaluation import extract_features, knn_scores
from mmmap.registry import LOOPS

from ..class_labels import align_query, dataset_classes
from ..data_loaders import build_loader


@LOOPS.register_module()
class KNNLoop(TestLoop):
    """Test loop that classifies the test images by their nearest neighbours among the images of a bank.

    The model is frozen and has no part in the vote but its features: a pretraining model does as well as a classifier.
    The metric is ``knn/accuracy`` in percent. The predictions go to the evaluator too, so that ``--out`` writes them
    and mmpretrain's metrics measure them; ``test_evaluator=[]`` has none. Within a training, ``KNNHook`` is the one to
    use.

    Classes are compared by name: labels of test images of fewer classes, or in another order, are mapped to those of
    the bank. On which classes the model was trained does not matter.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Labelled images to classify, the ``test_dataloader``.
        evaluator (Evaluator | dict | list): The ``test_evaluator``.
        bank_dataloader (DataLoader | dict): Labelled images that vote.
        k (int): Neighbours. Defaults to 20.

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
        bank, query = bank_dataloader.dataset, self.dataloader.dataset
        if not 1 <= k <= len(bank):
            raise ValueError(f'test_cfg.k={k}: must be from 1 to the {len(bank)} images of test_cfg.bank_dataloader')
        for message in align_query(bank, 'test_cfg.bank_dataloader.dataset', query, 'test_dataloader.dataset'):
            runner.logger.info(message)
        self.bank_dataloader = bank_dataloader
        self.classes = dataset_classes(bank, 'test_cfg.bank_dataloader.dataset') or ()
        self.k = k

    def run(self) -> dict[str, float]:
        """Extract the features of both data sets, classify, measure.

        Returns:
            dict[str, float]: ``knn/accuracy`` and the evaluator's metrics, the same on every process.
        """
        runner = self.runner
        runner.call_hook('before_test')
        # EMAHook swaps its weights in here.
        runner.call_hook('before_test_epoch')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.logger.info(
            f'kNN: extracting the features of {len(self.bank_dataloader.dataset)} bank images '
            f'and {len(self.dataloader.dataset)} test images'
        )
        bank, query = extract_features(model, self.bank_dataloader), extract_features(model, self.dataloader)
        found = [None, None]
        if bank is not None and query is not None:
            scores = knn_scores(*bank, query[0], k=self.k, device=next(model.parameters()).device)
            # Classes of which the bank has no image get no votes.
            scores = np.pad(scores, ((0, 0), (0, max(0, len(self.classes) - scores.shape[1]))))
            found = [scores, query[1]]
        # The features are on the main process only.
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
        # Dealt out as by a DefaultSampler, whose order the metrics restore and whose padding they drop.
        for i in range(rank, math.ceil(size / world_size) * world_size, world_size):
            score = scores[i % size]
            sample = DataSample().set_gt_label(int(labels[i % size]))
            self.evaluator.process([sample.set_pred_score(score).set_pred_label(int(score.argmax()))])
        return self.evaluator.evaluate(size)
