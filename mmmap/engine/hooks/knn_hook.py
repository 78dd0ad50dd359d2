"""Measures during pretraining how well the features tell classes apart."""

import numpy as np
import torch
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmap.evaluation import extract_share, gather_shares, knn_accuracy
from mmmap.registry import HOOKS

from ..class_labels import align_query
from ..data_loaders import build_loader
from .preemption_hook import PreemptionHook
from .side_product_hook import SideProductHook

Features = tuple[np.ndarray, np.ndarray]


@HOOKS.register_module()
class KNNHook(SideProductHook):
    """Every few epochs, and once before the first, the kNN accuracy of the backbone's features.

    The scalar ``knn/accuracy`` (percent, over epochs) goes to the log and the visualizer. It is measured after the
    checkpoint of the epoch; what goes wrong then, on any process, is logged and leaves the accuracy out. Classes are
    compared by name: labels of a query set that lacks some, or has another order, are mapped to those of the bank.

    Args:
        bank_dataloader (dict): Labelled images that vote.
        query_dataloader (dict): Labelled images to classify.
        interval (int): Epochs between two measurements; the last epoch has one too. Defaults to 10.
        k (int): Neighbours. Defaults to 20.

    Raises:
        ValueError: If ``interval`` or ``k`` is not positive.
    """

    def __init__(self, bank_dataloader: dict, query_dataloader: dict, interval: int = 10, k: int = 20) -> None:
        if interval < 1 or k < 1:
            raise ValueError(f'interval={interval}, k={k}: both must be positive')
        self.bank_dataloader = bank_dataloader
        self.query_dataloader = query_dataloader
        self.interval = interval
        self.k = k

    def before_train(self, runner: Runner) -> None:
        """Build the loaders; measure the untrained backbone.

        Raises:
            ValueError: If there are fewer images in the bank than neighbours to find.
            UserError: If images have no label or several, or the classes of the two do not fit.
        """
        self._bank = build_loader(runner, self.bank_dataloader)
        self._query = build_loader(runner, self.query_dataloader)
        if self.k > len(self._bank.dataset):
            raise ValueError(f'k={self.k} is more than the {len(self._bank.dataset)} images of bank_dataloader')
        keys = [f'KNNHook.{name}_dataloader.dataset' for name in ('bank', 'query')]
        for message in align_query(self._bank.dataset, keys[0], self._query.dataset, keys[1]):
            runner.logger.info(message)
        if runner.iter == 0:
            self._measure(runner, 0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Measure when due."""
        if self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner):
            self._measure(runner, runner.epoch + 1)

    def _measure(self, runner: Runner, epoch: int) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        preemption = next((hook for hook in runner.hooks if isinstance(hook, PreemptionHook)), None)
        # A run that is asked to stop does not wait for it.
        batches = iter if preemption is None else preemption.until_asked_to_stop
        # No process goes on to the gathering, which waits for all, unless all have their share.
        shares = self.attempt_together(
            lambda: [extract_share(model, batches(part)) for part in (self._bank, self._query)]
        )
        if shares is None:
            return
        bank, query = (gather_shares(*part) for part in zip(shares, (self._bank, self._query), strict=True))
        if bank is not None and query is not None:
            self.attempt(self._log, runner, epoch, bank, query, next(model.parameters()).device)

    def _log(self, runner: Runner, epoch: int, bank: Features, query: Features, device: torch.device) -> None:
        accuracy = knn_accuracy(*bank, *query, k=self.k, device=device)
        runner.visualizer.add_scalar('knn/accuracy', accuracy, step=epoch)
        runner.logger.info(f'Epoch {epoch}: kNN accuracy {accuracy:.2f} % (k = {self.k}, {len(query[0])} queries)')
